"""What is published of SAM Audio-Bench, to print beside our numbers (arXiv 2512.18099).

`ovr` is the mean overall score that people gave, 1 to 5. The judge is the released SAM Audio Judge:
its numbers are comparable with those of that network alone.
"""

from collections.abc import Mapping

OVR, JUDGE, CLAP = "ovr", "judge_overall", "clap"
SAM_AUDIO = "SAM Audio"

# Setting -> system -> judge, CLAP, people.
_TEXT: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "sfx": {
        SAM_AUDIO: (4.35, 0.31, 3.59),
        "SoloAudio": (3.29, 0.25, 2.97),
        "AudioSep": (2.63, 0.25, 2.88),
        "FlowSep": (2.36, 0.21, 2.65),
    },
    "speech": {
        SAM_AUDIO: (4.67, 0.35, 4.29),
        "SoloAudio": (3.45, 0.30, 3.32),
        "AudioSep": (2.93, 0.28, 2.85),
        "FlowSep": (2.18, 0.20, 2.14),
        "AudioShake": (3.90, 0.28, 3.95),
        "ElevenLabs": (3.79, 0.25, 3.72),
        "Auphonic": (4.32, 0.27, 4.08),
        "LalalAI": (3.77, 0.33, 3.92),
    },
    "speaker": {
        SAM_AUDIO: (4.51, 0.18, 4.15),
        "SoloAudio": (2.26, 0.19, 2.45),
        "AudioSep": (2.50, 0.17, 2.79),
        "FlowSep": (1.85, 0.09, 2.13),
        "AudioShake": (3.28, 0.14, 3.51),
    },
    "music": {
        SAM_AUDIO: (4.45, 0.26, 4.05),
        "SoloAudio": (2.68, 0.21, 2.47),
        "AudioSep": (3.47, 0.27, 3.51),
        "FlowSep": (2.73, 0.18, 2.90),
        "MoisesAI": (3.79, 0.27, 3.90),
    },
    "instr-pro": {
        SAM_AUDIO: (4.82, 0.28, 4.45),
        "Demucs": (4.48, 0.15, 4.26),
        "AudioShake": (3.87, 0.29, 4.28),
    },
}
_VIDEO = {"sfx-visual": 2.61, "speaker-visual": 3.07}  # people, of SAM Audio
# People, of the released checkpoints.
_CHECKPOINTS: Mapping[str, Mapping[str, float]] = {
    "SAM Audio small": {
        "sfx": 3.62,
        "speech": 3.99,
        "speaker": 3.12,
        "music": 4.11,
        "instr-wild": 3.56,
        "instr-pro": 4.24,
    },
    "SAM Audio base": {
        "sfx": 3.28,
        "speech": 4.25,
        "speaker": 3.57,
        "music": 3.87,
        "instr-wild": 3.66,
        "instr-pro": 4.27,
    },
    "SAM Audio large": {
        "sfx": 3.50,
        "speech": 4.03,
        "speaker": 3.60,
        "music": 4.22,
        "instr-wild": 3.66,
        "instr-pro": 4.49,
    },
}
# What a reader of the tables has to know, and published numbers beside which none of ours stands.
REMARKS = (
    "Published numbers of the judge are the released SAM Audio Judge's; they compare with no other "
    "judge. The settings below name what scored here.",
    "Published net win rates of SAM Audio, by people: sfx over SoloAudio about 36 %, speaker over "
    "AudioShake about 39 %, instr-pro over Demucs 17.6 %, video prompts over DAVIS-Flow 5 to 48 %. "
    "Spans alone on sfx have an overall score of 3.54, against 3.32 for text.",
)


def published() -> dict[str, dict[str, dict[str, float]]]:
    """Setting -> system -> column -> number."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for setting, systems in _TEXT.items():
        for system, (judge, clap, ovr) in systems.items():
            numbers = {JUDGE: judge, CLAP: clap, OVR: ovr}
            found.setdefault(setting, {})[system] = numbers
    for system, settings in _CHECKPOINTS.items():
        for setting, ovr in settings.items():
            found.setdefault(setting, {})[system] = {OVR: ovr}
    for setting, ovr in _VIDEO.items():
        found.setdefault(setting, {})[SAM_AUDIO] = {OVR: ovr}
    return found
