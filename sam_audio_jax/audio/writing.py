"""Writing of sound files."""

import os

import numpy as np
import soundfile
from jaxtyping import Float

from sam_audio_jax.files import whole_file


def write_wav(
    path: str | os.PathLike, samples: Float[np.ndarray, "channels samples"], sample_rate: int
) -> None:
    """Writes a float32 WAV whole or not at all; equal samples give equal bytes (no time stamp)."""
    import scipy.io.wavfile  # not above: it imports scipy.sparse, which a training does not need

    with whole_file(path) as part:
        scipy.io.wavfile.write(part, sample_rate, np.asarray(samples, np.float32).T)


def write_flac(
    path: str | os.PathLike, samples: Float[np.ndarray, "channels samples"], sample_rate: int
) -> None:
    """Writes a 16-bit FLAC whole or not at all; what is beyond full scale is clipped."""
    with whole_file(path) as part:
        soundfile.write(part, samples.T, sample_rate, format="FLAC", subtype="PCM_16")
