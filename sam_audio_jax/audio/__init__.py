"""Sound files and signals: decode, mix channels, level, resample, loudness, STFT, write.

The only package that knows formats of sound.
"""

from sam_audio_jax.audio.channels import (
    ChannelMixer,
    describe,
    is_mean,
    mixing_weights,
    mono,
)
from sam_audio_jax.audio.decoding import Audio, check_file, check_rate, header_length, load
from sam_audio_jax.audio.erb import erb_bands
from sam_audio_jax.audio.excerpt import Encoded, Raw, Sound, load_excerpt, sound_seconds
from sam_audio_jax.audio.level import (
    AS_RECORDED,
    SILENT_DB,
    TOO_LOUD,
    USUAL_DB,
    Level,
    LevelMeter,
    OffsetMeter,
    find_level,
    find_offsets,
    measure_level,
    without_offsets,
)
from sam_audio_jax.audio.resampling import Resampler, resample
from sam_audio_jax.audio.signal import (
    LOUDNESS_FLOOR_LUFS,
    all_finite,
    istft,
    loudness_lufs,
    rotate_phase,
    si_sdr,
    stft,
)
from sam_audio_jax.audio.writing import write_flac, write_wav
from sam_audio_jax.audio.zero_phase import frequencies, zero_phase

__all__ = [
    "AS_RECORDED",
    "LOUDNESS_FLOOR_LUFS",
    "SILENT_DB",
    "TOO_LOUD",
    "USUAL_DB",
    "Audio",
    "ChannelMixer",
    "Encoded",
    "Level",
    "LevelMeter",
    "OffsetMeter",
    "Raw",
    "Resampler",
    "Sound",
    "all_finite",
    "check_file",
    "check_rate",
    "describe",
    "erb_bands",
    "find_level",
    "find_offsets",
    "frequencies",
    "header_length",
    "is_mean",
    "istft",
    "load",
    "load_excerpt",
    "loudness_lufs",
    "measure_level",
    "mixing_weights",
    "mono",
    "resample",
    "rotate_phase",
    "si_sdr",
    "sound_seconds",
    "stft",
    "without_offsets",
    "write_flac",
    "write_wav",
    "zero_phase",
]
