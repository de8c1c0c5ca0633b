"""What scores and rows of an evaluation are called on its pages, and with how many decimals."""

from sam_audio_jax.eval.baselines import NAMES

# Column -> what it means, for those that the report has.
MEANING = {
    "sisdri": "SI-SDR improvement: by how many dB the output is closer to the true stem than the "
    "untouched mixture is; 0 is doing nothing, higher is better.",
    "logmel": "Log-mel distance: mean difference of the mel spectra in dB; lower is better, and "
    "the exact phase does not matter.",
    "following": "Prompt following: the share of mixtures of two sources where the prompt for the "
    "right source gives a stem that is closer to it than the prompt for the other source does; "
    "50 % is chance.",
    "judge_overall": "Judge: a network's estimate of how people would rate the target, from 1 to "
    "5, without a true stem.",
    "clap": "CLAP: the cosine of the target with its text, by a network.",
    "imagebind": "ImageBind: the cosine of the target with its masked video, by a network.",
    "aesthetics_CE": "Aesthetics: a network's estimate of content enjoyment (CE), content "
    "usefulness (CU), production complexity (PC) and production quality (PQ) of the target, from "
    "about 1 to 10.",
}
TABLES = {
    "judge_overall": "Judge of the target, overall",
    "judge_recall": "Judge of the target, recall: all of the sound is there",
    "judge_precision": "Judge of the target, precision: nothing else is",
    "judge_faithfulness": "Judge of the target, faithfulness: it sounds as in the mixture",
    "ovr": "Overall score by people, 1 to 5",
    "clap": "CLAP similarity of target and text",
    "imagebind": "ImageBind similarity of target and masked video",
    "aesthetics_CE": "Aesthetics of the target, content enjoyment",
    "aesthetics_CU": "Aesthetics of the target, content usefulness",
    "aesthetics_PC": "Aesthetics of the target, production complexity",
    "aesthetics_PQ": "Aesthetics of the target, production quality",
    "sisdri": "SI-SDR improvement of the target, dB",
    "sisdri_residual": "SI-SDR improvement of the residual, dB",
    "logmel": "Log-mel distance of the target, dB",
    "logmel_residual": "Log-mel distance of the residual, dB",
    "sdr": "SDR of the target, dB (Music Demixing Challenge, mono)",
    "bss_sdr": "SDR of the target, dB (BSS Eval 3)",
    "bss_sir": "SIR of the target, dB (BSS Eval 3)",
    "bss_sar": "SAR of the target, dB (BSS Eval 3)",
    "stft": "Multi-resolution STFT distance of the target",
    "span_iou": "Predicted spans: intersection over union with the listed ones",
    "absent_level_median": "Median level of the target for an absent sound, dB of the mixture",
    "reworded": "Another wording of the caption: change of the SI-SDR improvement, dB",
    "level_right": "Level of the target by its own prompt, dB of the mixture",
    "level_wrong": "Level of the target by the prompt of the other source, dB of the mixture",
    "kept_right": "Level of the true target in it by its own prompt, dB of the mixture",
    "kept_wrong": "Level of the true target in it by the prompt of the other source",
}
_FINE = ("judge_", "ovr", "clap", "imagebind", "aesthetics_", "span_iou", "stft")  # two decimals
_REFINED = {"none": "Model, as generated", "wiener": "Model, refined on the recording (wiener)"}


def score_title(column: str) -> str:
    """What a score is called; one that has no title by its name."""
    return TABLES.get(column, column)


def digits_of(column: str) -> int:
    """With how many decimals a score is shown."""
    return 2 if column.startswith(_FINE) else 1


def row_titles(row: str) -> tuple[str, str]:
    """Group heading and label of a row."""
    if row in NAMES:
        return "Baselines (all but the mixture know the true stems)", NAMES[row]
    _, refine, prompt = row.split("/")
    return _REFINED[refine], f"prompt: {prompt}"
