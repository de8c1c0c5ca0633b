"""A random equaliser: other rooms, microphones and loudspeakers colour a sound."""

import numpy as np
from jaxtyping import Float32

from sam_audio_jax import audio

LOWEST_HZ = 60.0  # of the first point; the last is near half the sample rate
POINTS = 6  # between which the gain is linear in dB over the logarithm of the frequency


def equalised(
    wave: Float32[np.ndarray, " samples"],
    sample_rate: int,
    largest_db: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, " samples"]:
    """The wave with random gains of at most `largest_db`, up or down, at `POINTS` frequencies.

    Phases stay as they are, so that nothing moves in time.
    """
    points = np.geomspace(LOWEST_HZ, 0.45 * sample_rate, POINTS)
    gains_db = rng.uniform(-largest_db, largest_db, POINTS)
    frequencies = audio.frequencies(len(wave), sample_rate)
    gain_db = np.interp(np.log(np.maximum(frequencies, 1e-3)), np.log(points), gains_db)
    return audio.zero_phase(wave, (10 ** (gain_db / 20)).astype(np.float32))
