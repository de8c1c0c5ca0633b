"""The scores of a pseudo-label: what each measures, and the threshold by which it can be a filter.

Published thresholds: arXiv 2512.18099, data section. The others need no released weights and are
ours; how each is measured is in docs/data.md, "Pseudo-labels".
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from sam_audio_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LabelScore:
    """One score of a label; a label is kept if it is on the side `keep` of the threshold."""

    keep: Literal["above", "below"]
    threshold: float
    published: bool
    meaning: str

    def passes(self, value: float, threshold: float | None = None) -> bool:
        """Whether a label with this value is kept; by default at the usual threshold."""
        limit = self.threshold if threshold is None else threshold
        return bool(value > limit if self.keep == "above" else value < limit)


LABEL_SCORES: Mapping[str, LabelScore] = {
    "clap_target": LabelScore("above", 0.35, True, "cosine of text and target, by CLAP"),
    "clap_residual": LabelScore("below", 0.0, True, "cosine of text and residual, by CLAP"),
    "complexity": LabelScore("below", 2.5, True, "production complexity of the target"),
    "silence": LabelScore("below", 0.95, True, "share of the target that is silent"),
    "mask_coverage": LabelScore("above", 0.02, True, "share of the picture in the mask"),
    "imagebind": LabelScore("above", 0.2, True, "cosine of target and masked video, by ImageBind"),
    "remix": LabelScore("above", 5.0, False, "target again, from beside another residual, dB"),
    "agreement_noise": LabelScore("above", 5.0, False, "target again, from another noise, dB"),
    "agreement_prompt": LabelScore("above", 5.0, False, "target again, by another prompt, dB"),
    "absent": LabelScore("below", -20.0, False, "target of an absent sound, dB of the mixture"),
    "residual_silence": LabelScore(
        "below", -10.0, False, "what the prompt finds again in the residual, dB of the target"
    ),
    "span_iou": LabelScore("above", 0.5, False, "overlap of the target's sound and the spans"),
    "judge": LabelScore("above", 3.5, False, "overall score of the judge, 1 to 5"),
}


def failing(
    scores: Mapping[str, float | None], thresholds: Mapping[str, float], where: str
) -> list[str]:
    """The names of `thresholds` by which a label with these scores is dropped.

    A score that was not computed passes nothing: raises `UserError`, which says `where`, for a
    threshold on one.
    """
    failed = []
    for name, threshold in thresholds.items():
        value = scores.get(name)
        if value is None or not math.isfinite(value):
            raise UserError(
                f"{where} has no score {name}, for which there is a threshold ({threshold:g}): "
                f"leave the threshold out, or label again with --filters {name}"
            )
        if not LABEL_SCORES[name].passes(value, threshold):
            failed.append(name)
    return failed
