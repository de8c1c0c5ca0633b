"""Reverberation: sounds as they are in a room, by the room's impulse response."""

import functools
import pathlib

import numpy as np
import scipy  # loads its parts when they are first used

from sam_audio_jax import audio
from sam_audio_jax.data.arrange import Samples
from sam_audio_jax.errors import UserError

LONGEST_S = 2.0  # of a response; what comes later is inaudible under most sounds
SUFFIXES = (".wav", ".flac", ".ogg")


@functools.lru_cache(maxsize=16)
def response_files(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The impulse responses in folders, in order. Raises `UserError` where a folder has none."""
    found = []
    for folder in folders:
        files = sorted(p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"data.mix.impulse_responses: no sound files in {folder}")
        found += map(str, files)
    return tuple(found)


@functools.lru_cache(maxsize=256)
def impulse_response(path: str, sample_rate: int) -> Samples:
    """A response from its direct sound on, as loud as that a sound keeps about its power.

    The direct sound is moved to the beginning: spans and videos stay where the sound is.
    """
    sound = audio.load(path)
    wave = audio.resample(audio.mono(sound.samples), sound.sample_rate, sample_rate)
    direct = int(np.abs(wave).argmax())
    wave = wave[direct : direct + int(LONGEST_S * sample_rate)]
    power = float(np.sum(np.square(wave, dtype=np.float64)))
    if not power > 0:
        raise UserError(f"data.mix.impulse_responses: {path} is silent")
    return (wave / np.sqrt(power)).astype(np.float32)


def reverberated(
    wave: Samples, sample_rate: int, folders: tuple[str, ...], rng: np.random.Generator
) -> Samples:
    """The wave in a random one of the rooms, cut at its length."""
    files = response_files(folders)
    response = impulse_response(files[int(rng.integers(len(files)))], sample_rate)
    return scipy.signal.oaconvolve(wave, response)[: len(wave)].astype(np.float32)
