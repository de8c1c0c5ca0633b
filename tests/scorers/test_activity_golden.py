"""Sound activity and span overlap against the reference's numbers, exactly."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.activity import (
    ActivityConfig,
    find_activity,
    merged,
    overlap,
    runs,
    span_score,
    to_24k,
    to_pcm,
)

RATE = 24_000


@pytest.fixture(scope="module")
def waves(fixtures_dir):
    return load_file(fixtures_dir / "sound_activity" / "sound_activity_io.safetensors")


@pytest.fixture(scope="module")
def cases(fixtures_dir):
    path = fixtures_dir / "sound_activity" / "sound_activity_cases.json"
    stored = json.loads(path.read_text())["cases"]
    assert stored
    return stored


def pairs(spans):
    return [tuple(span) for span in spans]


@pytest.mark.golden
def test_samples_at_24_khz(waves, cases):
    for name, case in cases.items():
        pcm = to_24k(to_pcm(waves[f"{name}.wave"]), case["sample_rate"])
        np.testing.assert_array_equal(pcm, waves[f"{name}.pcm24k"], err_msg=name)


@pytest.mark.golden
def test_spans_and_levels(waves, cases):
    for name, case in cases.items():
        config = ActivityConfig(mode=case["mode"], threshold_db=case["threshold_db"])
        got = find_activity(waves[f"{name}.wave"], case["sample_rate"], config)
        assert got.spans == pairs(case["nonsilent_spans"]), name
        assert got.peak == case["peak_rms"], name
        limit = case["absolute_threshold_db"]
        assert got.threshold_db == pytest.approx(-np.inf if limit is None else limit), name
        assert got.silence_ratio == pytest.approx(case["silence_ratio"], abs=1e-12), name


@pytest.mark.golden
def test_overlaps(cases):
    for name, case in cases.items():
        for kind, want in case["scores"].items():
            got = overlap(pairs(case["nonsilent_spans"]), pairs(want["ref"]))
            for metric in ("iou", "precision", "recall"):
                near = pytest.approx(want[metric], abs=1e-9)
                assert getattr(got, metric) == near, (name, kind, metric)


def bursts(*seconds, total=3.0, level=0.1):
    wave = np.zeros(round(total * RATE), np.float32)
    for start, end in seconds:
        tone = np.sin(np.arange(round(start * RATE), round(end * RATE)) * 0.3)
        wave[round(start * RATE) : round(end * RATE)] = level * tone
    return wave


def test_level_matters_only_to_an_absolute_threshold():
    quiet = bursts((1, 2), level=0.003)
    assert len(find_activity(quiet, RATE).spans) == 1
    assert find_activity(quiet, RATE, ActivityConfig(mode="abs")).spans == []


def test_pauses_shorter_than_the_window_are_no_silence():
    assert len(find_activity(bursts((0.5, 1), (1.2, 2)), RATE).spans) == 1
    assert len(find_activity(bursts((0.5, 1), (1.4, 2)), RATE).spans) == 2


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_gives_about_the_same_spans(rate):
    tone = np.sin(np.arange(3 * rate) * (2 * np.pi * 440 / rate)).astype(np.float32)
    wave = np.where((np.arange(3 * rate) // rate) == 1, tone, 0).astype(np.float32)
    ((start, end),) = find_activity(wave, rate).spans
    assert abs(start - 1) <= 0.02
    assert abs(end - 2) <= 0.02


def test_short_and_empty_clips():
    assert find_activity(bursts(total=0.1), RATE).spans == [(0.0, 0.1)]  # the reference's way
    assert find_activity(np.zeros(0, np.float32), RATE).spans == [(0.0, 0.0)]


def test_half_milliseconds_of_a_clip_are_rounded_as_by_the_reference():
    # pydub 0.25.1 says that these clips have 501, 502 and 2003 ms.
    for samples, end in ((12_036, 0.501), (12_060, 0.502), (48_084, 2.003)):
        assert find_activity(np.full(samples, 0.1, np.float32), RATE).spans == [(0.0, end)]


def test_merged_spans_count_once():
    spans = [(1.0, 2.0), (0.0, 1.5), (3.0, 4.0)]
    assert merged(spans) == [(0.0, 2.0), (3.0, 4.0)]
    assert overlap([(0.0, 2.0)], spans).precision == pytest.approx(1.25)
    assert overlap([(0.0, 2.0)], spans, merge=True).precision == 1.0
    assert overlap([], []).iou == 0.0


def test_a_candidate_that_sounds_where_it_should_scores_more():
    spans = [("+", 1.0, 2.0), ("-", 0.0, 1.0)]
    right, wrong = bursts((1, 2)), bursts((0, 1))
    assert span_score(right, RATE, spans) > 0.95
    assert span_score(wrong, RATE, spans) < 0.05
    assert span_score(bursts((0, 3)), RATE, spans, metric="recall") == 1.0


def test_runs():
    assert runs(np.array([1, 1, 0, 0, 1], bool)) == [(0, 2), (4, 5)]
    assert runs(np.zeros(3, bool)) == []


def test_settings_that_do_not_exist_are_the_users_error():
    with pytest.raises(UserError, match="rel_to_max"):
        ActivityConfig(mode="relative")
    with pytest.raises(UserError, match=r"activity\.window_ms=0"):
        ActivityConfig(window_ms=0)
    with pytest.raises(UserError, match="iou, precision, recall"):
        span_score(bursts((1, 2)), RATE, [], metric="f1")
