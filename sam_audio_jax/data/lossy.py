"""Artefacts of lossy codecs: a sound encoded at a low rate and decoded again."""

import io

import numpy as np
import soundfile
from jaxtyping import Float32

# Name -> (format and subtype of soundfile, range of its compression level).
CODECS = {
    "vorbis": ("OGG", "VORBIS", (0.6, 1.0)),
    "mp3": ("MP3", "MPEG_LAYER_III", (0.6, 1.0)),
}
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def coded(
    wave: Float32[np.ndarray, " samples"],
    sample_rate: int,
    names: tuple[str, ...],
    rng: np.random.Generator,
) -> Float32[np.ndarray, " samples"]:
    """The wave after one of the codecs, at a random strong compression; as long as it was.

    The codec gets it at a peak of 0.5, so that it is not clipped; MP3 has nine sample rates, at any
    other the wave stays as it is.
    """
    name = names[int(rng.integers(len(names)))]
    container, subtype, levels = CODECS[name]
    level = float(rng.uniform(*levels))
    peak = float(np.abs(wave).max(initial=0.0))
    if not peak or (name == "mp3" and sample_rate not in MP3_RATES):
        return wave
    gain, buffer = np.float32(0.5 / peak), io.BytesIO()
    soundfile.write(
        buffer,
        wave * gain,
        sample_rate,
        format=container,
        subtype=subtype,
        compression_level=level,
    )
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    out = np.zeros_like(wave)
    count = min(len(out), len(decoded))
    out[:count] = decoded[:count]
    return out / gain
