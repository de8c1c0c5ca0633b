"""Damages recordings by chance and decodes each: run as `python -m tests.audio.mutated SEED COUNT`.

Prints one JSON object for each file: what was done to it and what came of it. Each ends decoded or
refused by one UserError; anything else ends the process.
"""

import faulthandler
import json
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from tests.audio.recordings import by_av, by_soundfile, joined, sound

SLOWEST_S = 20.0  # for a file of a second
LARGEST = 3 << 30  # bytes of address space beside what the process begins with
BY_SOUNDFILE = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "w64", "rf64", "caf", "au")
BY_AV = {
    "aac": "aac",
    "m4a": "aac",
    "mp4": "aac",
    "mov": "pcm_s16le",
    "mkv": "libopus",
    "mka": "flac",
    "webm": "libopus",
    "ac3": "ac3",
    "ts": "aac",
    "avi": "libmp3lame",
    "flv": "aac",
    "mp2": "mp2",
}


def originals(folder: pathlib.Path) -> list[bytes]:
    """The bytes of one recording of each kind, and of two joined ones."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (2, 48_000)).astype(np.float32)
    wave = sound(1.0, 24_000, 2) + noise[:, :24_000]
    paths = [by_soundfile(folder / f"a.{kind}", wave, 24_000) for kind in BY_SOUNDFILE]
    wave = sound(1.0, 48_000, 2) + noise
    paths += [by_av(folder / f"b.{kind}", wave, codec) for kind, codec in BY_AV.items()]
    twice = [path for path in paths if path.suffix in (".mp3", ".ogg", ".flac", ".aac", ".wav")]
    paths += [joined(folder / f"j{path.suffix}", path, path) for path in twice]
    return [path.read_bytes() for path in paths]


def mutate(data: bytes, rng: np.random.Generator, others: list[bytes]) -> tuple[bytes, str]:
    """Returns damaged bytes and the name of the damage."""
    data, size = bytearray(data), len(data)
    first = int(rng.integers(size))
    length = int(rng.integers(1, max(2, size // int(rng.choice([4, 16, 64])))))
    kind = str(rng.choice(["bits", "head", "cut", "repeat", "remove", "zero", "swap", "noise"]))
    if kind in ("bits", "head"):
        for _ in range(int(rng.integers(1, 30))):
            position = int(rng.integers(size if kind == "bits" else min(size, 200)))
            data[position] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[first:]
    elif kind == "repeat":
        data[first:first] = data[first : first + length]
    elif kind == "remove":
        del data[first : first + length]
    elif kind == "zero":
        data[first : first + length] = bytes(len(data[first : first + length]))
    elif kind == "swap":
        other = others[int(rng.integers(len(others)))]
        data[: min(size, 100)] = other[: min(size, 100)]
    else:
        data[first : first + length] = rng.bytes(len(data[first : first + length]))
    return bytes(data), kind


def main(seed: int, count: int) -> None:
    """Decodes so many damaged files."""
    faulthandler.enable()
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = originals(folder)
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + LARGEST, used + LARGEST))
        for number in range(count):
            data, kind = mutate(files[number % len(files)], rng, files)
            path = folder / "damaged"
            path.write_bytes(data)
            faulthandler.dump_traceback_later(SLOWEST_S, exit=True)
            begin = time.monotonic()
            try:
                audio.header_length(path)
                recording = audio.load(path)
                result = {"seconds": recording.samples.shape[1] / recording.sample_rate}
                result |= {"notes": recording.notes}
            except UserError as error:
                result = {"refused": str(error)}
            faulthandler.cancel_dump_traceback_later()
            spent = time.monotonic() - begin
            print(
                json.dumps({"number": number, "kind": kind, "spent": spent, **result}), flush=True
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
