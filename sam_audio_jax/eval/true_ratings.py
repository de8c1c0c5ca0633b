"""Recall, precision, faithfulness and overall of a separation whose stems are known, 1 to 5.

Stated formulas, all ours, after the meaning of the judge's axes (docs/scoring.md, "Simulated
ratings"). Phases do not count: a generative separator does not reproduce them.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.data.arrange import Samples
from sam_audio_jax.data.degradations import TrueStems

WINDOW_S = 0.032  # of the short-time spectra, half of it a hop
BLOCK_S = 0.256  # gains are found for blocks of this length
BANDS = 10  # blocks across the frequencies, equally wide on the ERB scale
FLOOR = 1e-6  # of the loudest cell of the mixture: what is below it is silence
RIDGE = 1e-5  # of the least squares, by which stems that are alike share a gain
LOUDNESS = 0.3  # power to this exponent is loudness (Stevens)
WORST_SIR_DB, BEST_SIR_DB = -10.0, 30.0  # precision 1 and 5
WORST_DISTORTION = 0.3  # faithfulness 1; 0 is 5
OVERALL = (2.0, 2.0, 1.0)  # weights of recall, precision, faithfulness


class TrueRatings(NamedTuple):
    """Within 1 to 5, in the order of the judge's axes."""

    overall: float
    recall: float
    precision: float
    faithfulness: float


@dataclasses.dataclass(frozen=True)
class Reference:
    """The power spectra of true stems in blocks, with which several estimates are compared."""

    target: Float[np.ndarray, "cells bins"]
    residual: Float[np.ndarray, "cells bins"]
    frames: tuple[int, ...]  # the first frame of each block
    bins: tuple[int, ...]  # the first bin of each band
    sample_rate: int

    @classmethod
    def of(cls, stems: TrueStems) -> "Reference":
        """Raises `ValueError` for stems of which one is silent."""
        target, residual = (_power(x, stems.sample_rate) for x in (stems.target, stems.residual))
        if not target.any() or not residual.any():
            raise ValueError("a stem is silent: nothing can be recalled or left out")
        per_block = max(1, round(2 * BLOCK_S / WINDOW_S))
        frames = tuple(range(0, max(1, len(target) - per_block // 2), per_block))
        return cls(target, residual, frames, _bands(target.shape[1]), stems.sample_rate)

    def exchanged(self) -> "Reference":
        """The same stems, rated for the prompt of the residual."""
        return dataclasses.replace(self, target=self.residual, residual=self.target)

    def blocks(self, cells: Float[np.ndarray, "frames bins"]) -> Float[np.ndarray, "blocks bands"]:
        """Sums over the cells of each block."""
        return np.add.reduceat(np.add.reduceat(cells, self.frames, axis=0), self.bins, axis=1)

    def cells(self, blocks: Float[np.ndarray, "blocks bands"]) -> Float[np.ndarray, "frames bins"]:
        """The number of its block at every cell."""
        frames, bins = self.target.shape
        sizes = np.diff([*self.frames, frames]), np.diff([*self.bins, bins])
        return np.repeat(np.repeat(blocks, sizes[0], axis=0), sizes[1], axis=1)


def rate(estimate: Samples, reference: Reference) -> TrueRatings:
    """The four numbers of an estimate of the target, each within 1 to 5."""
    power = _power(estimate, reference.sample_rate)
    kept, leaked = _gains(power, reference)
    target, residual = (reference.blocks(x) for x in (reference.target, reference.residual))
    weight = target**LOUDNESS * (target > FLOOR * target.max())
    recall = float(np.sum(weight * np.sqrt(np.minimum(kept, 1))) / np.sum(weight))
    sounding, foreign = (np.sum(np.minimum(kept, 1) * target), np.sum(leaked * residual))
    least = 1e-6 * np.sum(target)
    ratio = sounding / (foreign + 10 ** (-BEST_SIR_DB / 10) * sounding + least)
    sir_db = 10 * np.log10(max(ratio, 1e-12))
    precision = float(np.clip((sir_db - WORST_SIR_DB) / (BEST_SIR_DB - WORST_SIR_DB), 0, 1))
    faithfulness = 1 - min(_distortion(power, kept, leaked, reference) / WORST_DISTORTION, 1)
    shares = np.array([recall, precision, faithfulness])
    overall = float(np.prod(shares ** (np.array(OVERALL) / sum(OVERALL))))
    return TrueRatings(*(1 + 4 * x for x in (overall, recall, precision, faithfulness)))


def _gains(
    power: Float[np.ndarray, "frames bins"], reference: Reference
) -> tuple[Float[np.ndarray, "blocks bands"], Float[np.ndarray, "blocks bands"]]:
    """The power gains, not negative, with which the stems add up to the estimate in each block.

    Least squares over the cells of a block, each in proportion to the mixture's power there and
    weighted by its square root. Where both stems have the same cells they share one gain.
    """
    target, residual = reference.target, reference.residual
    mixture = target + residual
    mixture = mixture + FLOOR * mixture.max()
    weight = np.sqrt(mixture)
    x, y = target / mixture, residual / mixture
    z = np.minimum(power / mixture, 2)
    ridge = RIDGE * reference.blocks(weight)
    xx, yy = (reference.blocks(weight * one * one) + ridge for one in (x, y))
    xy = reference.blocks(weight * x * y)
    xz, yz = (reference.blocks(weight * one * z) for one in (x, y))
    determinant = xx * yy - xy * xy
    kept, leaked = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    only_target, only_residual = leaked < 0, kept < 0
    kept = np.where(only_target, xz / xx, np.where(only_residual, 0, kept))
    leaked = np.where(only_residual, yz / yy, np.where(only_target, 0, leaked))
    return np.maximum(kept, 0), np.maximum(leaked, 0)


def _distortion(
    power: Float[np.ndarray, "frames bins"],
    kept: Float[np.ndarray, "blocks bands"],
    leaked: Float[np.ndarray, "blocks bands"],
    reference: Reference,
) -> float:
    """How far the loudness of the cells is from what the gains explain: 0 to 1; of silence 1.

    Cells count by the loudness of the estimate.
    """
    explained = reference.cells(kept) * reference.target
    explained = explained + reference.cells(leaked) * reference.residual
    floor = FLOOR * float((reference.target + reference.residual).max())
    there, wanted = (np.maximum(one, floor) ** LOUDNESS for one in (power, explained))
    weight = there - floor**LOUDNESS  # what is not there has no sound
    whole = float(np.sum(weight * (there + wanted)))
    return float(np.sum(weight * np.abs(there - wanted))) / whole if whole > 0 else 1.0


def _power(wave: Samples, sample_rate: int) -> Float[np.ndarray, "frames bins"]:
    window = 2 * round(WINDOW_S * sample_rate / 2)
    return np.square(np.abs(audio.stft(wave, window, window // 2))).astype(np.float64)


def _bands(bins: int) -> tuple[int, ...]:
    """The first bin of each band, equally wide on the ERB scale where the bins allow it."""
    nyquist_hz = (bins - 1) / WINDOW_S
    edges = np.linspace(0, np.log10(1 + 0.00437 * nyquist_hz), BANDS + 1)[:-1]
    first = np.round((10**edges - 1) / 0.00437 * WINDOW_S).astype(int)
    return tuple(np.unique(first[first < bins]).tolist())
