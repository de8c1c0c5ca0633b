"""Pairs of recordings as the judge reads them, in whole frames (docs/scoring.md, "Judge")."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from sam_audio_jax.codec.codec import frame_count, pad_to_hop
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.judge import JudgeConfig


class JudgeInputs(NamedTuple):
    """A batch of pairs; samples are whole frames."""

    mixture: Float32[np.ndarray, "batch samples"]
    separated: Float32[np.ndarray, "batch samples"]
    valid: Bool[np.ndarray, "batch frames"]  # True at an item's own frames, reflected ones included


def judge_inputs(
    mixtures: Sequence[Float[np.ndarray, " _"]],
    separated: Sequence[Float[np.ndarray, " _"]],
    sample_rate: int,
    config: JudgeConfig,
    *,
    frames: int | None = None,
) -> JudgeInputs:
    """Reflects the ends of mono clips up to whole frames, then pads them with zeros.

    They are padded to the longest, or to `frames`. Raises `UserError` for another sample rate than
    the judge's, for clips of a pair that have other numbers of frames, and for one that is too
    short to be reflected or too long for `frames`.
    """
    if sample_rate != config.sample_rate:
        raise UserError(
            f"the judge reads recordings at {config.sample_rate} Hz, not at {sample_rate} Hz"
        )
    if len(mixtures) != len(separated):
        raise UserError(
            f"{len(separated)} separated sounds were given with {len(mixtures)} mixtures"
        )
    sizes = []
    for number, pair in enumerate(zip(mixtures, separated, strict=True)):
        for clip in pair:
            check_length(len(clip), config, f"clip {number}")
        counts = [frame_count(len(clip), config.hop) for clip in pair]
        if counts[0] != counts[1]:
            raise UserError(
                f"clip {number}: the mixture has {len(pair[0])} samples, the separated sound "
                f"{len(pair[1])}; both must have the same number of frames of {config.hop}"
            )
        sizes.append(counts[0])
    longest = max(sizes, default=0) if frames is None else frames
    if max(sizes, default=0) > longest:
        raise UserError(f"a clip has {max(sizes)} frames, more than {longest}")

    def batch(clips: Sequence[Float[np.ndarray, " _"]]) -> Float32[np.ndarray, "batch samples"]:
        return np.stack(
            [_padded(pad_to_hop(clip, config.hop), longest * config.hop) for clip in clips]
        )

    valid = np.arange(longest) < np.array(sizes)[:, None]
    return JudgeInputs(batch(mixtures), batch(separated), valid)


def check_length(samples: int, config: JudgeConfig, name: str) -> None:
    """Raises `UserError` for a clip of so few samples that its end cannot be reflected."""
    if -samples % config.hop >= samples:
        least = config.hop // 2 + 1
        raise UserError(
            f"{name} has {samples} samples at {config.sample_rate} Hz, too few for the judge: "
            f"at least {least} are needed"
        )


def _padded(clip: Float[np.ndarray, " samples"], length: int) -> Float32[np.ndarray, " padded"]:
    return np.pad(clip.astype(np.float32, copy=False), (0, length - len(clip)))
