"""A new sound track under the unchanged pictures of a video file."""

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Float, Float32

from sam_audio_jax import audio
from sam_audio_jax.audio.packets import reason, url
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import whole_file
from sam_audio_jax.video.reading import sound_start, video_stream

CODECS = {".mp4": "aac", ".m4v": "aac", ".mov": "aac", ".webm": "libopus", ".mkv": "libopus"}
# Names of codecs in .mp4 and .mov for which FFmpeg has others: Apple's players know no hev1, and
# the kinds of ProRes differ by their names alone.
TAGS = ("hvc1", "ap4x", "ap4h", "apch", "apcn", "apcs", "apco")
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
BIT_RATE = 192_000
CHUNK = 1024  # samples handed to the encoder at once


def mux(
    video_path: str | os.PathLike,
    wave: Float[np.ndarray, "channels samples"],
    sample_rate: int,
    out_path: str | os.PathLike,
    track: int | None = None,
) -> None:
    """Copies the video's pictures, unchanged, beside another sound; whole or not at all.

    The sound is AAC in .mp4, .m4v and .mov, Opus in .webm and .mkv, and begins where
    `audio.load(video_path, track)` begins, without sound there with the picture. Raises UserError
    if there is no such video, the container cannot hold it, or the wave is not mono or stereo.
    """
    source_path, out_path = pathlib.Path(video_path), pathlib.Path(out_path)
    codec = CODECS.get(out_path.suffix.lower())
    if codec is None:
        raise UserError(f"{out_path} must end in one of {', '.join(CODECS)}")
    if not source_path.is_file():
        raise UserError(f"no video file at {source_path}")
    if len(wave) not in (1, 2) or not wave.size:
        raise UserError(
            f"the sound for {out_path} has shape {wave.shape}; allowed are 1 or 2 channels"
        )
    rate = sample_rate if codec == "aac" and sample_rate in AAC_RATES else 48_000
    samples = audio.resample(wave, sample_rate, rate)
    try:
        with (
            whole_file(out_path) as part,
            av.open(url(source_path)) as source,
            av.open(url(part), "w") as out,
        ):
            start = sound_start(source, str(source_path), track)
            _mux(source, out, samples, rate, codec, start, str(source_path))
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(
            f"{source_path} cannot be copied into {out_path}: {reason(error)}"
        ) from None


def _mux(
    source: Any,
    out: Any,
    samples: Float32[np.ndarray, "channels samples"],
    rate: int,
    codec: str,
    start: float,
    name: str,
) -> None:
    """Copies the packets of the pictures and encodes the sound between them, in order of time.

    The sound begins at `start`, in seconds of the pictures' clock. Times are moved where it is
    below 0, which players do not play.
    """
    pictures = video_stream(source, name)
    later = round(max(0.0, -start) / pictures.time_base)  # in ticks of the pictures
    start = max(0.0, start)
    copied = out.add_stream_from_template(pictures, opaque=True)
    if codec == "aac" and (tag := pictures.codec_context.codec_tag) in TAGS:
        copied.codec_context.codec_tag = tag
    layout = "mono" if len(samples) == 1 else "stereo"
    sound = out.add_stream(codec, rate=rate, layout=layout, bit_rate=BIT_RATE)
    chunks = iter(range(0, samples.shape[1], CHUNK))
    written_s = 0.0  # seconds of sound written

    def write(first: int) -> float:
        chunk = np.ascontiguousarray(samples[:, first : first + CHUNK])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, round(start * rate) + first
        out.mux(sound.encode(frame))
        return start + first / rate

    for packet in _until_last_shown(_with_decoding_times(source.demux(pictures))):
        packet.pts = None if packet.pts is None else packet.pts + later
        packet.dts = None if packet.dts is None else packet.dts + later
        time = packet.pts if packet.dts is None else packet.dts
        if time is None:
            raise UserError(f"{name} stores no times of its pictures, which a container does")
        while written_s < time * packet.time_base and (first := next(chunks, None)) is not None:
            written_s = write(first)
        packet.stream = copied
        out.mux(packet)
    for first in chunks:
        write(first)
    out.mux(sound.encode(None))


def _until_last_shown(packets: Iterable[Any]) -> Iterator[Any]:
    """Yields the packets of a stream up to the last one with a picture that is shown.

    A program that trims a video without encoding it leaves later pictures in the file, up to the
    next key frame, and an edit list that cuts them off, which the copy does not have.
    """
    hidden: list[Any] = []
    for packet in packets:
        hidden.append(packet)
        if not packet.is_discard:
            yield from hidden
            hidden = []


def _with_decoding_times(packets: Iterable[Any]) -> Iterator[Any]:
    """Yields the packets of a stream; those before the first with a decoding time get one.

    Matroska stores none, and where pictures are shown in another order (B-frames) FFmpeg knows
    those of the first packets only after them.
    """
    early: list[Any] = []
    is_timed = False
    for packet in packets:
        if not packet.size:  # the end of the stream
            continue
        if packet.dts is not None:
            for left, before in zip(range(len(early), 0, -1), early, strict=True):
                before.dts = packet.dts - left * max(1, packet.duration or 1)
                yield before
            early, is_timed = [], True
        elif not is_timed:
            early.append(packet)
            continue
        yield packet
    yield from early
