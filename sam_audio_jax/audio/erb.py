"""Bands of equal width to the ear, which the refinement and the losses of its mask share."""

import functools

import numpy as np
from jaxtyping import Float, Float32


@functools.lru_cache(maxsize=16)  # rates are those of callers' files
def erb_bands(
    sample_rate: int, window: int, band_erb: float
) -> tuple[Float32[np.ndarray, "bins bands"], Float[np.ndarray, " bands"]]:
    """Overlapping triangles over the bins of a window, and their centres in Hz.

    Centres are `band_erb` equivalent rectangular bandwidths apart (Glasberg and Moore 1990), and
    never less than a bin. The triangles of a bin add up to 1, so that their transpose spreads the
    value of a band over its bins. Both arrays are read-only.
    """
    bin_hz, nyquist = sample_rate / window, sample_rate / 2
    centres = [0.0]
    while centres[-1] < nyquist:
        erb = 24.7 * (4.37e-3 * centres[-1] + 1)
        centres.append(centres[-1] + max(bin_hz, band_erb * erb))
    bins = np.arange(window // 2 + 1) * bin_hz
    rows = [np.interp(bins, centres, row) for row in np.eye(len(centres))]
    triangles = np.stack(rows, axis=1).astype(np.float32)
    middles = np.asarray(centres)
    triangles.flags.writeable = middles.flags.writeable = False
    return triangles, middles
