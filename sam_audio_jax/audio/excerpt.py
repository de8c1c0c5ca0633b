"""Parts of sound files, decoded without what comes before and after them.

A training run reads a few seconds here and there of recordings that may last hours. So the decoder
seeks: soundfile where it knows the format (WAV, FLAC, Ogg, MP3), FFmpeg (PyAV) in all others and in
videos. What the header says about a file is believed here; `decoding.load` looks closer.
"""

import dataclasses
import io
import math
import pathlib
from typing import Any

import av.error
import numpy as np
import soundfile
from jaxtyping import Float32

from sam_audio_jax.audio import packets
from sam_audio_jax.audio.decoding import RATES, check_file
from sam_audio_jax.audio.libsndfile import ERRORS
from sam_audio_jax.audio.resampling import resample
from sam_audio_jax.audio.signal import all_finite
from sam_audio_jax.audio.timeline import LEAST_S
from sam_audio_jax.errors import UnusableError

MARGIN = 1_024  # samples of the lower rate around a part that is resampled: the filter's length
# Samples before a part of an MP3: its frames use bits of up to nine frames before them.
MP3_MARGIN = 10 * 1_152
PREROLL_S = 0.5  # decoded before a part by FFmpeg: codecs begin with what they have not yet


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The bytes of a sound file; `name` is what messages call it."""

    data: bytes
    name: str


@dataclasses.dataclass(frozen=True)
class Raw:
    """Samples that are decoded already, full scale 1."""

    samples: Float32[np.ndarray, "channels samples"]
    sample_rate: int
    name: str


Sound = pathlib.Path | Encoded | Raw


def load_excerpt(
    sound: Sound, start: int, length: int, sample_rate: int, track: int | None = None
) -> Float32[np.ndarray, "channels samples"]:
    """Samples `start` to `start + length` of a sound at `sample_rate`, cut at its end.

    They are those of the resampled whole, up to the end of the resampler's filter. `track` counts
    audio tracks from 1; None takes the one that players take. Raises `UnusableError` for a sound
    that cannot be decoded there, has no samples there, or samples that are not finite.
    """
    name = sound_name(sound)
    for read in (_by_soundfile, _by_packets) if track is None else (_by_packets,):
        samples = read(sound, start, length, sample_rate, track)
        if samples is not None:
            break
    else:
        raise UnusableError(f"{name} cannot be decoded")
    if not samples.shape[1]:
        raise UnusableError(f"{name} has no samples from {start / sample_rate:.2f} s", "no samples")
    if not all_finite(samples):
        raise UnusableError(f"{name} has samples that are NaN or infinite", "not finite")
    return samples


def sound_name(sound: Sound) -> str:
    """What messages call a sound."""
    return str(sound) if isinstance(sound, pathlib.Path) else sound.name


@dataclasses.dataclass(frozen=True)
class _Part:
    """What has to be decoded for a part of the resampled whole; samples of the file's own rate."""

    first: int
    last: int
    rate: int  # of the file
    to_rate: int
    start: int  # of the part, in samples of `to_rate`
    length: int

    def resampled(
        self, samples: Float32[np.ndarray, "channels decoded"]
    ) -> Float32[np.ndarray, "channels samples"]:
        """The part, of the decoded samples from `first` on."""
        out = resample(samples, self.rate, self.to_rate)
        skip = self.start - self.first * self.to_rate // self.rate
        return out[:, skip : skip + self.length]


def _part(start: int, length: int, rate: int, to_rate: int, before: int = 0) -> _Part:
    """Begins on a grid on which samples of both rates coincide; margins are for the filter.

    The decoder needs `before` samples of the file more.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise UnusableError(
            f"a sample rate of {rate} Hz; allowed are {RATES[0]} to {RATES[1]}", "sample rate"
        )
    if rate == to_rate:
        return _Part(max(0, start - before), start + length, rate, to_rate, start, length)
    step = rate // math.gcd(rate, to_rate)
    margin = math.ceil(MARGIN * max(1.0, rate / to_rate))
    first = max(0, start * rate // to_rate - margin - before) // step * step
    last = -(-(start + length) * rate // to_rate) + margin
    return _Part(first, last, rate, to_rate, start, length)


def _by_soundfile(
    sound: Sound, start: int, length: int, sample_rate: int, track: int | None
) -> Float32[np.ndarray, "channels samples"] | None:
    """The part as soundfile decodes it; None where it does not know the format or gives up."""
    if isinstance(sound, Raw):
        part = _part(start, length, sound.sample_rate, sample_rate)
        return part.resampled(sound.samples[:, part.first : part.last])
    source = io.BytesIO(sound.data) if isinstance(sound, Encoded) else check_file(sound)
    try:
        with soundfile.SoundFile(source) as file:
            before = MP3_MARGIN if file.format in ("MP3", "MPEG") else 0
            part = _part(start, length, file.samplerate, sample_rate, before)
            if file.format == "OGG" and (part.first or file.subtype == "OPUS"):
                return None  # it seeks to a wrong place in the last page, and Opus may begin late
            if part.first >= file.frames:
                return np.zeros((file.channels, 0), np.float32) if file.frames == 0 else None
            file.seek(part.first)
            samples = file.read(part.last - part.first, dtype="float32", always_2d=True)
            return part.resampled(np.ascontiguousarray(samples.T)) if len(samples) else None
    except UnusableError as error:
        raise UnusableError(f"{sound_name(sound)} has {error}", error.reason) from None
    except ERRORS:
        return None


def _by_packets(
    sound: Sound, start: int, length: int, sample_rate: int, track: int | None
) -> Float32[np.ndarray, "channels samples"] | None:
    """The part as FFmpeg decodes it, which finds it by the time stamps of the packets."""
    if isinstance(sound, Raw):
        return None
    name = sound_name(sound)
    source = io.BytesIO(sound.data) if isinstance(sound, Encoded) else check_file(sound)
    try:
        with packets.opened(source) as container:
            stream, _ = packets.choose_track(container, name, track)
            part = _part(start, length, stream.codec_context.sample_rate, sample_rate)
            return part.resampled(_decode(container, stream, part))
    except UnusableError as error:
        text = str(error) if name in str(error) else f"{name} has {error}"
        raise UnusableError(text, error.reason) from None
    except (av.error.FFmpegError, ValueError, OSError, MemoryError) as error:
        text = f"{name} cannot be decoded as sound: {packets.reason(error)}"
        raise UnusableError(text) from None


def _decode(container: Any, stream: Any, part: _Part) -> Float32[np.ndarray, "channels samples"]:
    """Samples `first` to `last` of a track at its own rate, cut where it ends.

    Packets that are damaged are silent; so is what is missing between time stamps. A time stamp
    places the first frame, and later ones where it deviates by more than rounding: Matroska and FLV
    store whole milliseconds, by which frames would overlap or leave holes.
    """
    base, rate = float(stream.time_base or 1 / part.rate), part.rate
    origin_s = packets.clock_start(container, float(stream.start_time or 0) * base)
    if part.first:
        seconds = max(0.0, origin_s + part.first / rate - PREROLL_S)
        container.seek(int(seconds / base), stream=stream)
    length, end, position = part.last - part.first, 0, -part.first
    samples: Float32[np.ndarray, "channels samples"] | None = None
    is_first = True
    for packet in packets.read_packets(container, stream):
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue
        for frame in frames:
            if not frame.samples:
                continue
            wave = packets.to_float(frame)
            samples = np.zeros((len(wave), length), np.float32) if samples is None else samples
            if len(wave) != len(samples):
                raise UnusableError("a number of channels that changes")
            if frame.time is not None:
                stamped = round((frame.time - origin_s) * rate) - part.first
                if is_first or abs(stamped - position) >= LEAST_S * rate:
                    position = stamped
                is_first = False
            skip = max(0, -position)
            found = wave[:, skip : max(skip, length - position)]
            samples[:, position + skip : position + skip + found.shape[1]] = found
            position += wave.shape[1]
            end = max(end, min(position, length))
        if position >= length:
            break
    return np.zeros((1, 0), np.float32) if samples is None else samples[:, :end]


def sound_seconds(sound: pathlib.Path | Encoded, track: int | None = None) -> float:
    """Seconds of a sound by its header. Raises `UnusableError` where it does not say."""
    source = io.BytesIO(sound.data) if isinstance(sound, Encoded) else check_file(sound)
    if track is None:
        try:
            header = soundfile.info(source)
            if header.frames > 0:
                return header.frames / header.samplerate
        except ERRORS:
            pass
    source = io.BytesIO(sound.data) if isinstance(sound, Encoded) else source
    name = sound_name(sound)
    try:
        with packets.opened(source) as container:
            stream, _ = packets.choose_track(container, name, track)
            if stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            if container.duration:
                return container.duration / 1e6
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, UnusableError):
            raise
        text = f"{name} cannot be decoded as sound: {packets.reason(error)}"
        raise UnusableError(text) from None
    raise UnusableError(f"{name} does not say how long it is", "no samples")
