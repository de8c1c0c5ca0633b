"""The level at which recordings reach the networks (docs/model.md, "Level and channels").

A network separates best at the levels that it was trained at, and a codec ends a quiet recording in
its noise floor. So a recording is brought to the usual level of its model, without its offset, and
the stems are brought back: what comes out does not depend on the gain of a recording.
"""

import collections
import dataclasses

import numpy as np
import scipy  # loads its parts when they are first used
from jaxtyping import Float, Float32

USUAL_DB = -30.0  # dBFS, level of a recording; where `tiny` separates best (docs/model.md)
CELL_S = 0.01  # the level is measured in cells of 10 ms
SUSTAINED = 5  # cells that a sound lasts at least; a shorter one is a click
CLICK_DB = 10.0  # a cell this far above what lasts around it is a click
ACTIVE_DB = -40.0  # below the loudest cell that is no click: silence
CLICK_SHARE = 0.01  # of the cells; if there are more clicks, they are the sound
MOST_CLICK_DB = 60.0  # of clicks above the rest; if they are louder, the rest is silence
OFFSET_SHARE = 0.05  # of the level; a smaller offset is usual, and stays
SILENT_DB = -100.0  # dBFS: a recording whose loudest sample is below it has nothing to separate
TOO_LOUD = 1e15  # of full scale 1.0; squares of the spectra of larger waves overflow float32
LEAST = 1e-12  # a peak below it is zero
LEAST_SHARE = 1e-6  # of an offset, likewise: float32 has no finer samples there
BLOCK = 2**16  # samples of which sums are taken, however they arrive


@dataclasses.dataclass(frozen=True)
class Level:
    """What is done to a recording before the networks take it, and undone on the stems."""

    gain: float = 1.0
    offset: float = 0.0

    def apply(self, wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
        """Returns the wave for the networks; clicks are cut at full scale."""
        if self == AS_RECORDED:
            return wave
        levelled = (wave - np.float32(self.offset)) * np.float32(self.gain)
        return np.clip(levelled, -1.0, 1.0, out=levelled)

    def undo(self, stems: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
        """Returns stems at the recording's own level; the offset is in none of them.

        They may be changed, while those of JAX are read-only.
        """
        if self.gain == 1.0:
            return stems if stems.flags.writeable else stems.copy()
        return stems * np.float32(1 / self.gain)

    def recorded(self, wave: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
        """Returns what `apply` had, but for the clicks that it cut."""
        wave = self.undo(wave)
        return wave + np.float32(self.offset) if self.offset else wave


AS_RECORDED = Level()


class LevelMeter:
    """Measures a mono signal as it arrives, in pieces of any lengths.

    `longest_s`: only so many of its last seconds count, for streams that go on for days. A second
    takes 3 kB.
    """

    def __init__(self, sample_rate: int, longest_s: int | None = None):
        self._cell = max(1, round(CELL_S * sample_rate))
        self._rest = np.zeros(0, np.float32)  # samples of the cell that is not complete
        self._seconds: collections.deque = collections.deque(maxlen=longest_s)  # cells, in 100s
        self._last = np.zeros((0, 4))  # cells of the second that is not complete

    def add(self, wave: Float[np.ndarray, " samples"]) -> None:
        """Measures more samples; a cell that is not complete waits for the next call."""
        wave = np.concatenate([self._rest, wave]) if len(self._rest) else wave
        whole = len(wave) // self._cell * self._cell
        self._rest = wave[whole:].copy()
        cells = np.concatenate([self._last, _measure(wave[:whole].reshape(-1, self._cell))])
        full = len(cells) // 100 * 100
        self._seconds.extend(cells[start : start + 100] for start in range(0, full, 100))
        self._last = cells[full:].copy()

    def level(self, usual_db: float) -> Level | None:
        """Returns what brings the signal so far to the usual level, in dBFS.

        None where there is nothing to bring there: silence, or an offset alone.
        """
        parts = [*self._seconds, self._last]
        if len(self._rest):
            parts.append(_measure(self._rest[None]))
        cells = np.concatenate(parts)
        if not len(cells):
            return None
        offset = float(cells[:, 0].mean())
        loudness, peak = _loudness_and_peak(cells, offset)
        if abs(offset) <= OFFSET_SHARE * loudness:
            offset = 0.0
            loudness, peak = _loudness_and_peak(cells, offset)
        if peak <= max(LEAST, LEAST_SHARE * abs(offset)):
            return None
        return Level(min(10 ** (usual_db / 20) / loudness, 1 / peak), offset)


class OffsetMeter:
    """Measures the offsets of channels as they arrive, in pieces of any lengths."""

    def __init__(self, channels: int):
        self._rest = np.zeros((channels, 0), np.float32)  # samples of the block that is not full
        self._samples = 0
        self._sums = np.zeros((2, channels))  # of the samples and of their squares

    def add(self, samples: Float[np.ndarray, "channels samples"]) -> None:
        """Measures more samples."""
        if self._rest.shape[1]:
            samples = np.concatenate([self._rest, samples], axis=1)
        whole = samples.shape[1] // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self._sums += _sums(samples[:, start : start + BLOCK])
        self._samples += whole
        self._rest = samples[:, whole:].copy()

    @property
    def offsets(self) -> Float32[np.ndarray, " channels"]:
        """Returns the mean of each channel so far, 0 where it is a usual one."""
        samples = max(self._samples + self._rest.shape[1], 1)
        means, squares = (self._sums + _sums(self._rest)) / samples
        variance = np.maximum(squares - means**2, 0)
        usual = means**2 <= OFFSET_SHARE**2 * variance
        return np.where(usual, 0.0, means).astype(np.float32)


def measure_level(
    wave: Float[np.ndarray, " samples"], sample_rate: int, usual_db: float | None
) -> Level:
    """Returns what brings a whole mono recording to the usual level; None: it stays as recorded.

    So do silence and an offset alone, for which `find_level` returns None.
    """
    level = None if usual_db is None else find_level(wave, sample_rate, usual_db)
    return AS_RECORDED if level is None else level


def find_level(
    wave: Float[np.ndarray, " samples"], sample_rate: int, usual_db: float
) -> Level | None:
    """Returns what `LevelMeter.level` does of a whole mono recording."""
    meter = LevelMeter(sample_rate)
    meter.add(wave)
    return meter.level(usual_db)


def find_offsets(
    samples: Float[np.ndarray, "channels samples"],
) -> Float32[np.ndarray, " channels"]:
    """Returns the offset of each channel, 0 where it is a usual one."""
    meter = OffsetMeter(len(samples))
    meter.add(samples)
    return meter.offsets


def without_offsets(
    samples: Float[np.ndarray, "channels samples"],
    offsets: Float[np.ndarray, " channels"] | None = None,
) -> Float[np.ndarray, "channels samples"]:
    """Returns the channels without `offsets`, by default those of `find_offsets`."""
    offsets = find_offsets(samples) if offsets is None else offsets
    return samples - offsets[:, None] if offsets.any() else samples


def _sums(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, "2 channels"]:
    """The sums of the samples of each channel, and of their squares."""
    block = np.array(samples, np.float64, order="C")
    return np.stack([block.sum(1), np.einsum("cs,cs->c", block, block)])


def _measure(pieces: Float[np.ndarray, "cells samples"]) -> Float[np.ndarray, "cells four"]:
    """Mean, mean square, minimum and maximum of each cell."""
    if not len(pieces):
        return np.zeros((0, 4))
    squares = np.einsum("cs,cs->c", pieces, pieces, dtype=np.float64) / pieces.shape[1]
    means = pieces.mean(1, dtype=np.float64)
    return np.stack([means, squares, pieces.min(1), pieces.max(1)], axis=1)


def _loudness_and_peak(
    cells: Float[np.ndarray, "cells four"], offset: float
) -> tuple[float, float]:
    """RMS of what is neither silence nor a click, and the largest magnitude that is no click."""
    means, squares, least, most = cells.T
    rms = np.sqrt(np.maximum(squares - 2 * offset * means + offset**2, 0))
    peaks = np.maximum(most - offset, offset - least)
    sustained = scipy.ndimage.maximum_filter1d(
        scipy.ndimage.minimum_filter1d(rms, SUSTAINED, mode="nearest"), SUSTAINED, mode="nearest"
    )
    clicks = rms > sustained * 10 ** (CLICK_DB / 20)
    many = clicks.sum() > max(CLICK_SHARE * len(cells), SUSTAINED)
    rest = rms[~clicks].max(initial=0.0)
    if many or rms.max() > rest * 10 ** (MOST_CLICK_DB / 20):
        clicks[:] = False
    rms, peaks = rms[~clicks], peaks[~clicks]
    active = rms > rms.max() * 10 ** (ACTIVE_DB / 20)
    loudness = np.sqrt(np.mean(np.square(rms[active]))) if active.any() else 0.0
    return float(loudness), float(peaks.max())
