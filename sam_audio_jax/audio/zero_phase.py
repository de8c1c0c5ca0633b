"""Filters that change the level of each frequency of a whole signal and move nothing in time.

The discrete Fourier transform of a signal of `samples = rows * columns` is computed in two steps,
along the columns of the signal as a matrix and then along its rows (Cooley and Tukey,
https://doi.org/10.1090/S0025-5718-1965-0178586-1): short transforms, many at once, stay in the
processor's caches and vector units, which makes it three times as fast as one long transform. The
spectrum stays in the order in which that leaves it.
"""

import dataclasses
import functools

import numpy as np
import scipy  # loads its parts when they are first used
from jaxtyping import Complex64, Float32

MOST_ROWS = 480  # of which the part that a vector unit transforms at once fits the first cache
KEPT_LENGTHS = 2  # of signals, whose tables are kept: 10 bytes a sample
BLOCK = 32  # rows of factors that are computed from one


@dataclasses.dataclass(frozen=True)
class _Tables:
    """What the transform of a signal of `rows * columns` samples needs."""

    rows: int
    columns: int
    twiddle: Complex64[np.ndarray, "half columns"]
    untwiddle: Complex64[np.ndarray, "half columns"]  # its complex conjugate
    frequencies: Float32[np.ndarray, "half columns"]  # cycles a sample, 0 to 0.5


@functools.lru_cache(maxsize=KEPT_LENGTHS)
def _tables(samples: int) -> _Tables:
    rows = next(n for n in range(min(MOST_ROWS, max(1, samples)), 0, -1) if samples % n == 0)
    columns, half = samples // rows, np.arange(rows // 2 + 1, dtype=np.int32)
    # exp(-2 pi i row column / samples) as products of two smaller tables.
    angle = -2j * np.pi / samples * np.arange(columns)
    fine = np.exp(angle * np.arange(BLOCK)[:, None])
    coarse = np.exp(angle * half[::BLOCK, None])
    twiddle = np.concatenate([(row * fine).astype(np.complex64) for row in coarse])[: len(half)]
    numbers = half[:, None] + rows * np.arange(columns, dtype=np.int32)
    frequencies = np.minimum(numbers, samples - numbers).astype(np.float32) / np.float32(samples)
    untwiddle = twiddle.conj()
    for table in (twiddle, untwiddle, frequencies):
        table.setflags(write=False)
    return _Tables(rows, columns, twiddle, untwiddle, frequencies)


def frequencies(samples: int, sample_rate: int) -> Float32[np.ndarray, "half columns"]:
    """The frequencies in Hz at which `zero_phase` asks for gains, in its own order."""
    return _tables(samples).frequencies * np.float32(sample_rate)


def zero_phase(
    wave: Float32[np.ndarray, " samples"], gains: Float32[np.ndarray, "half columns"]
) -> Float32[np.ndarray, " samples"]:
    """The wave with the gain of each of its `frequencies`; its end joins its beginning."""
    tables = _tables(len(wave))
    spectrum = scipy.fft.rfft(wave.reshape(tables.rows, tables.columns), axis=0)
    spectrum *= tables.twiddle
    spectrum = scipy.fft.fft(spectrum, axis=1, overwrite_x=True)
    spectrum *= gains
    spectrum = scipy.fft.ifft(spectrum, axis=1, overwrite_x=True)
    spectrum *= tables.untwiddle
    return np.asarray(scipy.fft.irfft(spectrum, tables.rows, axis=0)).reshape(-1)
