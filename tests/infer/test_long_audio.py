"""Long recordings: windows agree with the one-shot solve, in memory that does not grow."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.codec.chunked import decoder_context
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs, long_audio
from sam_audio_jax.infer.batch.run import Settings, run
from sam_audio_jax.infer.buckets import BucketConfig, Group, group
from sam_audio_jax.infer.long_audio import Layout, LongAudio, LongAudioConfig
from sam_audio_jax.infer.manifest import read_manifest
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.span_prediction import SpanFinder
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.windows import lay_windows, window_starts
from tests.children import environment

RATE = 8_000
SHORT = LongAudioConfig(window_s=2.0, overlap_s=0.5, one_shot_s=3.0, batch=3)
PROMPTS = {"text": "dog barking", "spans": (("+", 0.5, 2.2), ("-", 6.0, 7.0))}
SAMPLER = SamplerConfig(method="midpoint", steps=2)


@pytest.fixture(scope="module")
def windowed(folder):
    """The model of these tests with short windows, so that ten seconds are long."""
    return SAMAudio.from_pretrained(folder, long_audio=SHORT)


def windowing(model, config=SHORT) -> LongAudio:
    """The model's networks with other windows."""
    pipeline = model.pipeline
    return LongAudio(pipeline.compiled, pipeline.tokenizer, config)


def solve(model, wave, seed=0, config=SHORT, sampler=SAMPLER, **prompts) -> np.ndarray:
    """Stems by windows, whatever the length."""
    run = windowing(model, config)
    noise = inputs.draw_noise(seed, model.codec.config.frames(len(wave)), 16)
    return run(run.encode(wave), noise[None], sampler=sampler, **prompts)[0]


def test_one_window_is_the_one_shot_solve(model, noise_of):
    wave = noise_of(3.01)
    prompts = PROMPTS | {"spans": PROMPTS["spans"][:1]}
    stems = model.separate(wave, sample_rate=RATE, method="midpoint", steps=2, **prompts)
    for window_s in (4.0, 76 / 25):  # shorter than a window, and as long as one
        config = LongAudioConfig(window_s=window_s, overlap_s=1.0)
        whole = solve(model, wave, config=config, **prompts)
        np.testing.assert_allclose(whole[:, : len(wave)], [stems.target, stems.residual], atol=1e-5)


def test_the_batch_of_windows_changes_nothing(model, noise_of):
    wave = noise_of(9.99)
    one = solve(model, wave, config=dataclasses.replace(SHORT, batch=1), **PROMPTS)
    many = solve(model, wave, config=dataclasses.replace(SHORT, batch=16), **PROMPTS)
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_prompts_reach_their_windows_alone(model, noise_of):
    """With one evaluation of the velocity a prompt has no effect beyond its windows."""
    wave = noise_of(10.0)
    once = SamplerConfig(method="euler", steps=1)
    plain, prompted = (
        solve(model, wave, sampler=once, spans=spans) for spans in ((), (("+", 9.0, 9.5),))
    )
    prompted_frame = 9 * 25
    first = min(start for start in window_starts(250, 50, 12) if start + 50 > prompted_frame)
    early = (first - decoder_context(model.codec.config)) * 320
    np.testing.assert_array_equal(plain[:, :early], prompted[:, :early])
    assert np.abs(plain - prompted)[:, early:].max() > 1e-4


def test_long_recordings_are_solved_in_windows_by_themselves(windowed, noise_of, monkeypatch):
    waves = [noise_of(2.9), noise_of(3.5), noise_of(8.03)]
    solved = []
    call = LongAudio.__call__

    def counted(self, mixture, *rest, **options):
        solved.append(len(mixture))
        return call(self, mixture, *rest, **options)

    monkeypatch.setattr(LongAudio, "__call__", counted)
    stems = windowed.separate(waves, ["dog"] * 3, sample_rate=RATE, seed=5)
    assert solved == [88, 201]
    assert [len(one.target) for one in stems] == [len(wave) for wave in waves]
    alone = windowed.separate(waves[2], "dog", sample_rate=RATE, seed=5)
    np.testing.assert_array_equal(alone.target, stems[2].target)
    noise = inputs.draw_noise(5, 201, 16)
    from_noise = windowed.separate(waves[2], "dog", sample_rate=RATE, noise=noise)
    np.testing.assert_array_equal(alone.target, from_noise.target)
    sampler = SamplerConfig(method="euler", steps=2)  # the model's
    by_hand = solve(windowed, waves[2], seed=5, sampler=sampler, text="dog")
    np.testing.assert_array_equal(alone.target, by_hand[0, : len(waves[2])])


def test_positions_do_not_limit_the_length(model, noise_of):
    """500 positions are 20 s: pieces and windows end there, recordings do not."""
    assert model.pipeline.long_audio.longest == 500
    wave = noise_of(24.0)
    stems = model.separate(wave, "dog", sample_rate=RATE, steps=1)
    assert stems.target.shape == wave.shape
    assert 0 < np.std(stems.target) < np.inf


def test_refined_long_stems_are_the_recording(windowed, noise_of):
    wave = noise_of(8.0, channels=2)
    stems = windowed.separate(wave, "dog", sample_rate=16_000, refine="wiener")
    np.testing.assert_array_equal(stems.target + stems.residual, wave)
    assert 0 < np.std(stems.target) < np.std(wave)


def test_candidates_of_a_long_recording(windowed, noise_of):
    wave, spans = noise_of(5.0), [("+", 0.5, 2.0)]
    stems = windowed.separate(wave, "dog", spans, sample_rate=RATE, candidates=2)
    first = windowed.separate(wave, "dog", spans, sample_rate=RATE)
    second = inputs.draw_noise(0, 125, 16, 1)
    second = windowed.separate(wave, "dog", spans, sample_rate=RATE, noise=second)
    kept = (first, second)[int(np.argmax(stems.scores))]
    np.testing.assert_allclose(stems.target, kept.target, atol=1e-5)


def test_spans_of_a_long_recording_are_predicted_piece_by_piece(windowed, noise_of, monkeypatch):
    calls = []

    class Finder(SpanFinder):
        def require(self):
            pass

        def __call__(self, latents, valid, texts, *, padding):
            calls.append((latents.shape, valid.shape, texts, padding))
            return [(("+", 0.21, 0.61),)]

    wave = noise_of(8.0)
    spans = [("+", 0.21, 0.61), ("+", 2.89, 3.29), ("+", 5.57, 5.97)]  # 67 frames apart
    with_spans = windowed.separate(wave, "dog", spans, sample_rate=RATE)
    finder = Finder(None, windowed.codec.config)
    monkeypatch.setattr(windowed.pipeline, "span_finder", finder)
    found = windowed.separate(wave, "dog", sample_rate=RATE, predict_spans=True)
    assert [call[1] for call in calls] == [(1, 67), (1, 67), (1, 66)]
    np.testing.assert_allclose([span[1:] for span in found.spans], [span[1:] for span in spans])
    np.testing.assert_array_equal(found.target, with_spans.target)


def test_a_watermark_is_refused(windowed, noise_of):
    item = windowed.item(noise_of(8.0), "dog", sample_rate=RATE)
    options = SeparateOptions(watermark="random")
    with pytest.raises(UserError, match="audio is too long for a watermark"):
        windowed.pipeline.separate_items([item], options)


def test_long_items_of_a_manifest(windowed, noise_of, tmp_path):
    lines = []
    for number, seconds in enumerate((1.0, 7.0, 1.0)):
        audio.write_wav(tmp_path / f"{number}.wav", noise_of(seconds, number)[None], RATE)
        lines.append({"id": f"item{number}", "audio": f"{number}.wav", "text": "dog"})
    lines[1]["spans"] = [["+", 5.0, 6.0]]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = Settings(checkpoint="x", options=SeparateOptions(seed=1))
    entries = read_manifest(tmp_path / "items.jsonl")
    assert run(windowed, entries, tmp_path / "out", settings) == {}
    for number, spans in enumerate((None, [("+", 5.0, 6.0)], None)):
        written = audio.load(tmp_path / "out" / f"item{number}.target.wav").samples[0]
        stems = windowed.separate(tmp_path / f"{number}.wav", "dog", spans, seed=1)
        np.testing.assert_allclose(written, stems.target, atol=2e-5)


def test_many_lengths_have_few_shapes():
    """1 to 500 windows, two hours: every shape is a compilation."""
    shapes = set()
    for count in range(1, 501):
        layout = Layout.of(lay_windows(20 + 15 * (count - 1), 20, 5), batch=8, shards=1)
        shapes.add((layout.weights.shape, layout.frames(5)))
    assert len(shapes) <= 24


def memory(run: LongAudio, count: int) -> int:
    """Bytes that the solve of `count` windows needs besides its arguments and its result."""
    frames = 50 + 38 * (count - 1)
    recording, layout = run.prepare(np.zeros((frames, 8), np.float32), "dog", (), None)
    assert recording.mixture.shape[0] == frames  # no padding: these counts are whole batches
    leaves, tree = jax.tree.flatten((recording, layout, jnp.zeros((frames, 16))))
    networks = run.networks
    program = jax.jit(
        lambda x: long_audio.solve_windows(networks, *tree.unflatten(x), sampler=SAMPLER)
    )
    return program.lower(leaves).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_windows(model):
    few, many = (memory(windowing(model), count) for count in (24, 192))
    at_once = memory(windowing(model, dataclasses.replace(SHORT, batch=192)), 192)
    states = 4 * 16 * 38 * (192 - 24)  # bytes by which one copy of the state grows
    assert many - few < 8 * states
    assert at_once - few > 30 * states


def test_batches_are_even_and_few():
    for count in (1, 2, 7, 8, 9, 100, 241):
        laid = lay_windows(20 + 15 * (count - 1), 20, 5)
        assert len(laid.starts) == count
        for shards in (1, 4):
            layout = Layout.of(laid, batch=8, shards=shards)
            capacity, rows, _ = layout.weights.shape
            batches = int(layout.batches)
            assert rows % shards == 0
            assert batches <= capacity < 2 * batches
            assert count <= batches * rows < count + batches * shards
            np.testing.assert_array_equal(np.ravel(layout.starts)[:count], laid.starts)
            assert not np.reshape(layout.weights, (-1, 20))[count:].any()


@pytest.mark.processes
def test_windows_are_shared_out_over_a_mesh(folder):
    """Compiles every program for one device and for eight, in a process of its own.

    The number of devices is fixed when JAX starts.
    """
    script = pathlib.Path(__file__).parent / "eight_devices.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment(devices=8, JAX_DEFAULT_MATMUL_PRECISION="highest"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_groups_leave_long_items_alone():
    groups = group([300, 40, 900, 40, 900], BucketConfig(), longest=300)
    assert groups == [
        Group(40, 2, (1, 3)),
        Group(300, 1, (0,)),
        Group(900, 1, (2,)),
        Group(900, 1, (4,)),
    ]
    tight = group([299, 40, 900], BucketConfig(exact=0, sizes=(50, 320)), longest=300)
    assert [part.frames for part in tight] == [50, 300, 900]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlap_s": 20.0}, "overlap_s=20.0 must be 0 or more and below"),
        ({"overlap_s": -1.0}, "overlap_s=-1.0 must be a finite number from 0"),
        ({"one_shot_s": 10.0}, "one_shot_s=10.0 must be long_audio.window_s=20.0 or more"),
        ({"batch": 0}, "batch=0 must be a whole number from 1"),
    ],
)
def test_impossible_settings(fields, message):
    with pytest.raises(UserError, match=message):
        LongAudioConfig(**fields)
