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
    sizes = [
        pair_frames(len(one), len(other), config, f"clip {number}")
        for number, (one, other) in enumerate(zip(mixtures, separated, strict=True))
    ]
    longest = max(sizes, default=0) if frames is None else frames
    if max(sizes, default=0) > longest:
        raise UserError(f"a clip has {max(sizes)} frames, more than {longest}")

    def batch(clips: Sequence[Float[np.ndarray, " _"]]) -> Float32[np.ndarray, "batch samples"]:
        return np.stack(
            [_padded(pad_to_hop(clip, config.hop), longest * config.hop) for clip in clips]
        )

    valid = np.arange(longest) < np.array(sizes)[:, None]
    return JudgeInputs(batch(mixtures), batch(separated), valid)


def pair_frames(mixture: int, separated: int, config: JudgeConfig, name: str) -> int:
    """The frames of a pair of clips of so many samples.

    Raises `UserError` for clips of other numbers of frames, and for one that is too short.
    """
    for samples in (mixture, separated):
        check_length(samples, config, name)
    frames, others = (frame_count(samples, config.hop) for samples in (mixture, separated))
    if frames != others:
        raise UserError(
            f"{name}: the mixture has {mixture} samples, the separated sound {separated}; both "
            f"must have the same number of frames of {config.hop}"
        )
    return frames


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
