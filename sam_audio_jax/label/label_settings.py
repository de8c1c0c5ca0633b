"""What the labels of a folder depend on besides its inputs and networks; which scores there are."""

import dataclasses
from collections.abc import Sequence

from sam_audio_jax.bounds import Checked, Seconds, Seed, Size
from sam_audio_jax.data.label_scores import LABEL_SCORES
from sam_audio_jax.data.likeness import Present
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.options import SeparateOptions, SolverSteps
from sam_audio_jax.label.label_inputs import LabelInput
from sam_audio_jax.label.prompt_kinds import PromptKind

# The scorer of each score that needs one, by its name in `infer/scorer_files.py`.
NETWORK_OF = {
    "clap_target": "clap",
    "clap_residual": "clap",
    "complexity": "aesthetics",
    "imagebind": "imagebind",
    "judge": "judge",
}
# What an input must have for a score, whatever it is prompted by.
TEXT_SCORES = ("clap_target", "clap_residual", "judge", "absent")
SPAN_SCORES = ("span_iou",)
VIDEO_SCORES = ("imagebind", "mask_coverage")
MOST_CAPTIONS = 100  # that are compared to find out whether any sound can be absent


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSettings(Checked, where=""):
    """How inputs are prompted and separated, and what is scored; `scores` in the table's order."""

    prompts: str = "text"  # a name of `prompt_kinds.KINDS`
    scores: tuple[str, ...] = ("silence",)
    seed: Seed = 0  # of the noise
    method: str | None = None  # of the solver; None: what the model's config says
    steps: SolverSteps | None = None  # likewise
    refine: str | None = None  # "wiener": labels are the recording itself, divided
    longest_s: Seconds = 60.0  # longer recordings have no label
    per_shard: Size = 64  # inputs of a shard, which a kill loses at most
    vocabulary: tuple[str, ...] = ()  # of the tagger, for inputs without a caption; empty: none
    phrases: bool = False  # whether captions became noun-verb phrases when they were read

    def __post_init__(self):
        super().__post_init__()
        self.options(0)
        if unknown := [name for name in self.scores if name not in LABEL_SCORES]:
            raise UserError(
                f"--filters {unknown[0]!r} is unknown; allowed: {', '.join(LABEL_SCORES)}"
            )
        kind = self.kind  # checks the name
        if "absent" in self.scores and "text" not in kind.parts:
            raise UserError(f"--filters absent tests texts, and --prompts {self.prompts} has none")

    @property
    def kind(self) -> PromptKind:
        """The kind of prompt."""
        return PromptKind(self.prompts)

    def options(self, noise: int) -> SeparateOptions:
        """Options of a separation from one of the noises, counted from 0."""
        return SeparateOptions(
            seed=(self.seed + noise) % 2**32,
            method=self.method,
            steps=self.steps,
            refine=self.refine,
        )

    def missing(self, one: LabelInput) -> str:
        """Why an input cannot have a label with all scores; "" if it can."""
        if self.vocabulary and not one.caption:  # it will have one
            one = dataclasses.replace(one, texts=self.vocabulary[:1])
        if reason := one.reason or self.kind.missing(one):
            return reason
        needed = {
            "text": ("no caption", TEXT_SCORES, bool(one.caption)),
            "span": ("no spans", SPAN_SCORES, any(token == "+" for token, _, _ in one.spans)),
            "video": ("no video", VIDEO_SCORES, one.video is not None),
            "mask": ("no mask", ("mask_coverage",), one.mask is not None),
        }
        for reason, names, present in needed.values():
            for name in names:
                if name in self.scores and not present:
                    return f"{reason}, which the score {name} needs"
        if "agreement_prompt" in self.scores and not one.caption:
            return "no caption, which the score agreement_prompt needs"
        return ""


def possible_scores(
    kind: PromptKind, networks: Sequence[str], inputs: Sequence[LabelInput]
) -> tuple[str, ...]:
    """The scores that inputs prompted so can have, with the networks that are there."""
    lacking = set()
    if "text" not in kind.parts:
        lacking |= {*TEXT_SCORES, "agreement_prompt"}
    if "span" not in kind.parts:
        lacking |= set(SPAN_SCORES)
    if "video" not in kind.parts:
        lacking |= set(VIDEO_SCORES)
    captions = list(dict.fromkeys(one.caption for one in inputs if one.caption))
    if not each_lacks_one(captions[:MOST_CAPTIONS]):
        lacking.add("absent")
    if len({one.recording for one in inputs if not one.reason}) < 2:
        lacking.add("remix")
    if not all(one.mask for one in inputs if not one.reason):
        lacking.add("mask_coverage")
    lacking |= {name for name, network in NETWORK_OF.items() if network not in networks}
    return tuple(name for name in LABEL_SCORES if name not in lacking)


def each_lacks_one(captions: Sequence[str]) -> bool:
    """Whether to each caption there is another one that cannot be true of its sound."""
    return bool(captions) and all(
        any(not Present({one}).may_include(other) for other in captions) for one in captions
    )


def chosen_scores(
    names: Sequence[str], kind: PromptKind, networks: Sequence[str], inputs: Sequence[LabelInput]
) -> tuple[str, ...]:
    """The named scores in the order of their table; without names, all that are possible.

    Raises UserError for a score whose network is not given.
    """
    if not names:
        return possible_scores(kind, networks, inputs)
    for name in names:
        if (network := NETWORK_OF.get(name)) and network not in networks:
            raise UserError(
                f"--filters {name} needs --scorers {network}=PATH, of trained weights: name them, "
                "or leave the filter out"
            )
    order = {name: number for number, name in enumerate(LABEL_SCORES)}
    return tuple(sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order))))
