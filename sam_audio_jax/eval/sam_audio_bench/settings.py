"""The 14 settings of SAM Audio-Bench, in the order of the paper (arXiv 2512.18099)."""

import dataclasses

from sam_audio_jax.eval.prompting import VIDEO


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting: which rows of the table it has, and what prompts them."""

    name: str
    value: str | None  # of `paper_eval_sets`; None: the rows of the table of MUSDB18-HQ
    kind: str  # of prompt: text, text+span or video


_WITH_SPANS = {
    "sfx": "others-50",
    "speech": "speech-clean-50",
    "speaker": "spk-50",
    "music": "music-clean-50",
    "instr-wild": "instr-50",
}
_ON_SCREEN = {
    "sfx": "others-onscreen-50",
    "speaker": "spk-onscreen-50",
    "instr-wild": "instr-onscreen-50",
}
_ALL = (
    *(Setting(name, f"{subset}:text-only", "text") for name, subset in _WITH_SPANS.items()),
    Setting("instr-pro", None, "text"),
    *(
        Setting(f"{name}-span", f"{subset}:text+span", "text+span")
        for name, subset in _WITH_SPANS.items()
    ),
    *(
        Setting(f"{name}-visual", f"{subset}:visual-only", VIDEO)
        for name, subset in _ON_SCREEN.items()
    ),
)
SETTINGS = {setting.name: setting for setting in _ALL}
TEXT_SETTINGS = tuple(one.name for one in _ALL if one.kind == "text")
SPAN_SETTINGS = tuple(one.name for one in _ALL if one.kind == "text+span")
VISUAL_SETTINGS = tuple(one.name for one in _ALL if one.kind == VIDEO)
