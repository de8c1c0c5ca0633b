"""Small recordings that tests make, each a tone that swells."""

import pathlib
from collections.abc import Collection

import av
import numpy as np
import soundfile

RATE = 48_000
SUBTYPES = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS", "opus": "OPUS", "flac": "PCM_16"}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
MUXERS = {
    "aac": "adts",
    "oga": "ogg",
    "m4a": "ipod",
    "mka": "matroska",
    "ts": "mpegts",
    "opus": "ogg",
}


def sound(seconds: float, rate: int = RATE, channels: int = 1, hz: float = 440) -> np.ndarray:
    """A rising tone, of its own pitch in each channel: each moment differs from each other."""
    time = np.arange(round(seconds * rate)) / rate
    pitches = np.arange(1, channels + 1)[:, None]
    return (0.3 * np.sin(2 * np.pi * pitches * hz * (time + 0.3 * time**2))).astype(np.float32)


def by_soundfile(path: pathlib.Path, wave: np.ndarray, rate: int = RATE) -> pathlib.Path:
    """Writes a WAV, FLAC, MP3, or Ogg with Vorbis or Opus."""
    kind = path.suffix[1:]
    name = "OGG" if kind == "opus" else kind.upper()
    soundfile.write(path, wave.T, rate, format=name, subtype=SUBTYPES.get(kind, "PCM_16"))
    return path


def by_av(
    path: pathlib.Path,
    wave: np.ndarray,
    codec: str,
    rate: int = RATE,
    *,
    holes: Collection[tuple[float, float]] = (),
    begin: float = 0.0,
    jitter: np.ndarray | None = None,
) -> pathlib.Path:
    """Encodes a wave; packets that begin in `holes` (start, end in seconds) are left out.

    `jitter` is added to the time stamps of packets, in seconds.
    """
    with av.open(str(path), "w", format=MUXERS.get(path.suffix[1:])) as out:
        layout = LAYOUTS[len(wave)]
        stream = out.add_stream(codec, rate=rate, layout=layout)
        form = stream.codec_context.format.name
        size = {"libopus": 960, "libmp3lame": 1152, "ac3": 1536}.get(codec, 1024)
        packets = []
        for start in range(0, wave.shape[1], size):
            frame = av.AudioFrame.from_ndarray(
                _as_format(wave[:, start : start + size], form), format=form, layout=layout
            )
            frame.sample_rate, frame.pts = rate, start + round(begin * rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number, packet in enumerate(packets):
            time = float(packet.pts * packet.time_base)
            if any(start <= time - begin < stop for start, stop in holes):
                continue
            if jitter is not None:
                moved = round(float(jitter[number % len(jitter)]) / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
            out.mux(packet)
    return path


def _as_format(wave: np.ndarray, form: str) -> np.ndarray:
    if form.startswith("s16"):
        wave = np.round(wave * 32767).astype(np.int16)
    if form.startswith("s32"):
        wave = np.round(wave * 2.0**31).astype(np.int32)
    return np.ascontiguousarray(wave if form.endswith("p") else wave.T.reshape(1, -1))


def joined(path: pathlib.Path, *paths: pathlib.Path) -> pathlib.Path:
    """Writes the bytes of several files one after another."""
    path.write_bytes(b"".join(one.read_bytes() for one in paths))
    return path


def level(wave: np.ndarray, start: float, stop: float, rate: int = RATE) -> float:
    """The RMS of the first channel between two times."""
    return float(np.sqrt(np.mean(wave[0, round(start * rate) : round(stop * rate)] ** 2)))


def lag(wave: np.ndarray, reference: np.ndarray, rate: int = RATE) -> float:
    """Returns how many seconds later the first channel sounds than that of the reference."""
    size = max(wave.shape[-1], reference.shape[-1])
    spectra = [np.fft.rfft(one[0], 2 * size) for one in (wave, reference)]
    likeness = np.fft.irfft(spectra[0] * spectra[1].conj())
    best = int(np.argmax(likeness))
    return (best if best < size else best - 2 * size) / rate


def with_tracks(path: pathlib.Path, waves: list[np.ndarray], default: int = 1) -> pathlib.Path:
    """Writes several audio tracks at 48 kHz; track number `default` is marked as such."""
    with av.open(str(path), "w") as out:
        streams = []
        for number, wave in enumerate(waves, 1):
            stream = out.add_stream("flac", rate=RATE, layout=LAYOUTS[len(wave)])
            stream.metadata["language"] = ("eng", "deu", "fra")[number % 3]
            marks = av.stream.Disposition
            stream.disposition = marks.default if number == default else marks(0)
            streams.append(stream)
        packets = []
        for stream, wave in zip(streams, waves, strict=True):
            frame = av.AudioFrame.from_ndarray(
                _as_format(wave, "s16"), format="s16", layout=LAYOUTS[len(wave)]
            )
            frame.sample_rate, frame.pts = RATE, 0
            packets += [*stream.encode(frame), *stream.encode(None)]
        for packet in packets:
            out.mux(packet)
    return path
