import numpy as np

from sam_audio_jax.data import energy
from sam_audio_jax.scorers.activity import runs

RATE = 8000


def bursts(*seconds: tuple[float, float], total: float = 4.0, level: float = 0.1) -> np.ndarray:
    wave = np.zeros(int(total * RATE), np.float32)
    for start, end in seconds:
        wave[int(start * RATE) : int(end * RATE)] = level
    return wave


def test_activity_fills_short_rests_and_drops_clicks():
    wave = bursts((0.5, 1.0), (1.2, 1.8), (2.5, 2.6), (3.0, 3.5))
    active = energy.activity(wave, RATE, 320)  # frames of 40 ms
    assert runs(active) == [(12, 45), (75, 87)]


def test_a_single_click_stays_and_silence_has_no_activity():
    assert energy.activity(bursts((1.0, 1.1)), RATE, 320).any()
    assert not energy.activity(bursts(), RATE, 320).any()
    assert not energy.activity(bursts((0, 4), level=1e-5), RATE, 320).any()


def test_40_db_below_the_loudest_is_silence():
    wave = bursts((1, 2)) + bursts((2.5, 3.5), level=0.1 * 10 ** (-45 / 20))
    assert runs(energy.activity(wave, RATE, 320)) == [(25, 50)]


def test_active_rms_counts_only_sounding_cells():
    assert np.isclose(energy.active_rms(bursts((1.0, 1.5)), RATE), 0.1)


def test_overlap():
    one, other = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert energy.overlap(one, other) == 1 / 3
    assert energy.overlap(one & False, one & False) == 1.0
