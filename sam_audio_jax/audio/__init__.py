"""Sound files and signals: decode, resample, loudness, STFT, write.

The only package that knows formats of sound.
"""

from sam_audio_jax.audio.decoding import Audio, check_file, header_length, load
from sam_audio_jax.audio.resampling import Resampler, resample
from sam_audio_jax.audio.signal import (
    LOUDNESS_FLOOR_LUFS,
    all_finite,
    istft,
    loudness_lufs,
    mono,
    rotate_phase,
    si_sdr,
    stft,
)
from sam_audio_jax.audio.writing import write_wav

__all__ = [
    "LOUDNESS_FLOOR_LUFS",
    "Audio",
    "Resampler",
    "all_finite",
    "check_file",
    "header_length",
    "istft",
    "load",
    "loudness_lufs",
    "mono",
    "resample",
    "rotate_phase",
    "si_sdr",
    "stft",
    "write_wav",
]
