"""Decoding of sound files: soundfile decodes what it can (WAV, FLAC, OGG, MP3), PyAV the rest."""

import dataclasses
import os
import pathlib

import av
import av.error
import numpy as np
import soundfile
from jaxtyping import Float32

from sam_audio_jax.audio.signal import all_finite
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import first_line


@dataclasses.dataclass(frozen=True)
class Audio:
    """A decoded file: float32 samples, full scale 1.0."""

    samples: Float32[np.ndarray, "channels samples"]
    sample_rate: int


def load(path: str | os.PathLike) -> Audio:
    """Decodes a sound or video file at its own rate.

    Raises UserError if the file is missing, cannot be decoded, has no samples, or has samples that
    are NaN or infinite.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no sound file at {path}")
    try:
        samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = samples.T
    except (soundfile.SoundFileError, RuntimeError):
        samples, sample_rate = _load_with_av(path)
    if not samples.size:
        raise UserError(f"{path} has no samples")
    if not all_finite(samples):
        raise UserError(f"{path} has samples that are NaN or infinite")
    return Audio(np.ascontiguousarray(samples), int(sample_rate))


def header_length(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns samples and sample rate by the header of a sound file; None if it has to be decoded.

    A header may be wrong; the samples of `load` are what counts.
    """
    try:
        header = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError):
        return None
    return (header.frames, header.samplerate) if header.frames > 0 else None


def _load_with_av(path: pathlib.Path) -> tuple[Float32[np.ndarray, "channels samples"], int]:
    """Decodes with FFmpeg; returns samples and rate. Raises UserError where there is no sound."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise UserError(f"{path} has no audio stream")
            resampler = av.AudioResampler(format="fltp")
            frames = [
                piece.to_ndarray()
                for frame in container.decode(audio=0)
                for piece in resampler.resample(frame)
            ]
            frames += [piece.to_ndarray() for piece in resampler.resample(None)]
            rate = container.streams.audio[0].rate
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be decoded as sound: {first_line(error)}") from None
    if not frames:
        return np.zeros((1, 0), np.float32), rate or 1
    return np.concatenate(frames, axis=1).astype(np.float32), rate
