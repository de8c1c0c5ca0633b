"""Rendering is exact, and an error in a list names its line."""

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import activity, load_bench, render
from sam_audio_jax.scorers.activity import overlap
from tests.eval.listing import RATE, event, write_lines


def render_all(folder):
    bench = load_bench(folder)
    return [render(bench, item) for item in bench.mixtures]


def test_stems_are_sums_of_placed_events(bench_folder):
    bench = load_bench(bench_folder)
    item = bench.mixtures[2]
    rendered = render(bench, item)
    hum, hiss = (audio.load(bench_folder / f"{n}.wav").samples[0] for n in ("hum", "hiss"))
    expected = np.zeros(2 * RATE, np.float64)
    expected[:RATE] += hum[:RATE]
    expected[4_000 : 4_000 + RATE] += 0.25 * hiss[100 : 100 + RATE].astype(np.float64)
    np.testing.assert_array_equal(rendered.residual, expected.astype(np.float32))
    np.testing.assert_array_equal(rendered.mixture, rendered.target + rendered.residual)
    assert len(rendered.mixture) == item.samples
    assert rendered.sample_rate == RATE
    assert not rendered.target[:RATE].any()


def test_the_other_source_is_named_only_where_there_is_one(bench_folder):
    assert [item.other for item in load_bench(bench_folder).mixtures] == ["hum", "hiss", None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture_peak": 0.99}, "line 1: mixture a: the mixture peaks at 0"),
        ({"target": [event("moo")]}, "line 1: mixture a: clip 'moo' is not in manifest.jsonl"),
        ({"target": [event("hiss", start=20_000)]}, "20000 to 28000 of clip hiss, which has 24000"),
        ({"target": [event("hiss", gain=0.0)]}, "line 1: mixture a: its target is silent"),
        ({"target": [event("hiss", offset=12_000)]}, "line 1: mixture a: event"),
        ({"sample_rate": 16_000}, "clip hiss has 8000 Hz, the mixture 16000 Hz"),
        ({"spans": [[1.5, 1.0]]}, "span 1.5-1.0 s must have start < end within 0-2 s"),
        ({"samples": "many"}, "line 1: samples='many' must be a whole number"),
        ({"samples": 10**9}, "samples are more than 86400 s"),
        ({"samples": 10**400}, "must be a whole number from 1"),
        ({"residual_captions": [1]}, "residual_captions=[1] must be a list, each a text"),
        ({"target": [event("hiss") | {"clip": ["a"]}]}, "clip=['a'] must be a text"),
        ({"id": "b"}, "line 2: id b is also in line 1"),
    ],
)
def test_a_bad_line_is_named(bench_folder, lines, change, message):
    write_lines(bench_folder / "mixtures.jsonl", [lines[0] | change, *lines[1:]])
    with pytest.raises(UserError) as caught:
        render_all(bench_folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_and_a_missing_file(bench_folder, lines, tmp_path):
    write_lines(
        bench_folder / "mixtures.jsonl", [{k: v for k, v in lines[0].items() if k != "target"}]
    )
    with pytest.raises(UserError, match="line 1: field 'target' is missing"):
        load_bench(bench_folder)
    (bench_folder / "mixtures.jsonl").write_text("")
    with pytest.raises(UserError, match="no lines"):
        load_bench(bench_folder)
    with pytest.raises(UserError, match=r"has no manifest.jsonl; give 'embedded' or a folder"):
        load_bench(tmp_path / "nowhere")


def test_embedded_list_renders_as_listed():
    bench = load_bench("embedded")
    items = {item.setting: item for item in bench.mixtures}
    assert set(items) == {"sfx", "speech", "speaker", "music", "instr"}
    for item in (items["sfx"], items["speaker"]):
        assert item.peak is not None
        assert abs(np.abs(render(bench, item).mixture).max() - item.peak) < 1e-3


def test_activity_finds_the_sounding_seconds(bench_folder):
    bench = load_bench(bench_folder)
    target = render(bench, bench.mixtures[2]).target
    np.testing.assert_allclose(activity(target, RATE), bench.mixtures[2].spans, atol=0.02)


def test_overlap_is_intersection_over_union():
    assert overlap(((0.0, 2.0),), ((1.0, 3.0),)).iou == pytest.approx(1 / 3)
    assert overlap(((0.0, 1.0), (2.0, 3.0)), ((0.0, 1.0), (2.0, 3.0))).iou == 1
    assert overlap((), ()).iou == 0
