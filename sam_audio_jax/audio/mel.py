"""The mel filter bank that losses, scorers, reports and pictures share."""

import functools
import warnings

import librosa
import numpy as np
from jaxtyping import Float32


@functools.cache
def mel_filters(
    sample_rate: int, window: int, bands: int, low_hz: float = 0.0, high_hz: float | None = None
) -> Float32[np.ndarray, "bins bands"]:
    """Mel filters with Slaney's scale and unit area, computed in float64.

    The bins are those of a window of `window` samples, the bands end at `high_hz`, by default the
    Nyquist frequency. A band that is narrower than a bin may be empty, as in the references.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        filters = librosa.filters.mel(
            sr=sample_rate,
            n_fft=window,
            n_mels=bands,
            fmin=low_hz,
            fmax=high_hz,
            dtype=np.float64,
        )
    return np.ascontiguousarray(filters.T.astype(np.float32))
