"""Sound files and signals: decode, resample, loudness, STFT, write.

The only file that knows formats of sound. soundfile decodes what it can (WAV, FLAC, OGG, MP3), PyAV
everything else (video, AAC, G.722, ...).
"""

import dataclasses
import functools
import math
import os
import pathlib

import av
import av.error
import numpy as np
import pyloudnorm
import scipy.io.wavfile
import soundfile
import soxr
from jaxtyping import Complex, Float, Float32

from sam_audio_jax.errors import UserError
from sam_audio_jax.files import first_line, whole_file

LOUDNESS_FLOOR_LUFS = -70.0  # BS.1770's absolute gate: what "silent" measures as


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


def all_finite(samples: np.ndarray) -> bool:
    """Returns whether no sample is NaN or infinite; allocates no array as long as the sound."""
    return bool(np.isfinite([samples.min(), samples.max()]).all())


def mono(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, " samples"]:
    """Returns the mean of the channels; a single channel is returned as it is, not copied."""
    return samples[0] if len(samples) == 1 else samples.mean(0)


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


def resample(
    samples: Float[np.ndarray, "... samples"], from_rate: int, to_rate: int
) -> Float32[np.ndarray, "... resampled"]:
    """Resamples the last axis (soxr HQ) to `ceil(samples * to_rate / from_rate)` samples."""
    samples = np.asarray(samples, np.float32)
    if from_rate == to_rate:
        return samples
    length = math.ceil(samples.shape[-1] * to_rate / from_rate)
    if samples.ndim == 1:
        resampled = soxr.resample(samples, from_rate, to_rate)[:length]
        return np.pad(resampled, (0, length - len(resampled)))
    out = np.empty((*samples.shape[:-1], length), np.float32)
    for index in np.ndindex(samples.shape[:-1]):
        out[index] = resample(samples[index], from_rate, to_rate)
    return out


class Resampler:
    """`resample` for a signal that arrives in blocks: the same samples, each a little later."""

    def __init__(self, from_rate: int, to_rate: int, channels: int):
        self.from_rate, self.to_rate = from_rate, to_rate
        self._samples_in = self._samples_out = 0
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32")

    @property
    def latency_s(self) -> float:
        """The longest wait of a sample for later ones: soxr works on about 1000 samples at once."""
        return 0.0 if self._stream is None else 1024 / min(self.from_rate, self.to_rate)

    def __call__(
        self, block: Float[np.ndarray, "samples channels"], *, last: bool = False
    ) -> Float32[np.ndarray, "resampled channels"]:
        """Returns the next samples; with `last` all that remain of what `resample` returns."""
        block = np.asarray(block, np.float32)
        self._samples_in += len(block)
        if self._stream is None:
            return block
        out = self._stream.resample_chunk(block, last=last).reshape(-1, block.shape[1])
        if last:
            rest = math.ceil(self._samples_in * self.to_rate / self.from_rate) - self._samples_out
            out = np.pad(out[:rest], ((0, max(0, rest - len(out))), (0, 0)))
        self._samples_out += len(out)
        return out


def write_wav(
    path: str | os.PathLike, samples: Float[np.ndarray, "channels samples"], sample_rate: int
) -> None:
    """Writes a float32 WAV whole or not at all; equal samples give equal bytes (no time stamp)."""
    with whole_file(path) as part:
        scipy.io.wavfile.write(part, sample_rate, np.asarray(samples, np.float32).T)


@functools.cache
def _hann(window: int) -> Float32[np.ndarray, " window"]:
    """Returns the periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def stft(
    samples: Float[np.ndarray, "... samples"], window: int, hop: int
) -> Complex[np.ndarray, "... frames bins"]:
    """Returns the centred periodic-Hann STFT with zeros around the signal.

    `window` is a multiple of `hop`. `ceil(samples / hop) + 1` frames cover every sample often
    enough for an exact inverse.
    """
    if window % hop:
        raise ValueError(f"window {window} must be a multiple of hop {hop}")
    length = samples.shape[-1]
    frames = math.ceil(length / hop) + 1
    pad = [(0, 0)] * (samples.ndim - 1) + [(window // 2, frames * hop + window // 2 - length)]
    padded = np.pad(samples, pad)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1)
    return np.fft.rfft(pieces[..., : frames * hop : hop, :] * _hann(window), axis=-1)


def istft(
    spectrum: Complex[np.ndarray, "... frames bins"], window: int, hop: int, samples: int
) -> Float[np.ndarray, "... samples"]:
    """Inverts `stft` (by least squares for a changed spectrum); the result has `samples`."""
    frames, parts = spectrum.shape[-2], window // hop
    pieces = np.fft.irfft(spectrum, window, axis=-1) * _hann(window)
    pieces = pieces.reshape(*spectrum.shape[:-1], parts, hop)
    squares = np.square(_hann(window)).reshape(parts, hop)
    out = np.zeros((*spectrum.shape[:-2], frames + parts - 1, hop), pieces.dtype)
    weight = np.zeros((frames + parts - 1, hop), pieces.dtype)
    for part in range(parts):
        out[..., part : part + frames, :] += pieces[..., part, :]
        weight[part : part + frames] += squares[part]
    out /= np.maximum(weight, 1e-8)
    flat = out.reshape(*spectrum.shape[:-2], -1)
    return flat[..., window // 2 : window // 2 + samples]


@functools.cache
def _meter(sample_rate: int) -> pyloudnorm.Meter:
    """Returns the meter of a rate; its filters are designed once."""
    return pyloudnorm.Meter(sample_rate)


def loudness_lufs(wave: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """Returns the integrated loudness (BS.1770: 0.4 s blocks, 75 % overlap), at least -70 LUFS."""
    short = sample_rate // 2 - len(wave)
    if short > 0:
        wave = np.pad(wave, (0, short))
    with np.errstate(divide="ignore"):
        value = float(_meter(sample_rate).integrated_loudness(wave))
    return max(value, LOUDNESS_FLOOR_LUFS) if math.isfinite(value) else LOUDNESS_FLOOR_LUFS


def rotate_phase(
    wave: Float[np.ndarray, " samples"], angle: float, sample_rate: int
) -> Float32[np.ndarray, " samples"]:
    """Adds one angle (radians) to the phase of every STFT bin: another wave, the same sound."""
    window = 2 ** math.ceil(math.log2(0.032 * sample_rate))  # 2048 at 44.1 and 48 kHz
    spectrum = stft(wave, window, window // 4) * np.exp(1j * np.float32(angle))
    return istft(spectrum, window, window // 4, len(wave)).astype(np.float32)
