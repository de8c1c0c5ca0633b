"""Batches for the separator: shapes, prompts that fit the sound, rounds, exact resume."""

import dataclasses

import numpy as np
import pytest

from sam_audio_jax.data import energy, records
from sam_audio_jax.data.pipeline import BatchStream
from sam_audio_jax.errors import UserError
from tests.data.toy import (
    HOP,
    RATE,
    TEACHER,
    assert_equal,
    config,
    replaced,
    separation,
    take,
    write_cache,
)

FRAMES = 50


@pytest.fixture(scope="module")
def cache(world, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("cache") / "latents"
    write_cache(folder, config(world, seconds=3.0), 24)
    return str(folder)


def test_batches_have_fixed_shapes_masks_and_spans_inside(world, cache):
    cfg = config(world, short_share=0.5)
    for source, signal, dtype in (
        (cfg, (16000,), np.float32),
        (replaced(cfg, cache=cache), (FRAMES, 4), np.float16),
    ):
        for batch in take(separation(source, 6), 4):
            assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
                **{name: ((6, *signal), dtype) for name in records.SIGNALS},
                **{"valid": ((6, FRAMES), bool), "text_mask": ((6, 40), bool)},
                **{"text_ids": ((6, 40), np.int32)},
                "anchors": ((6, FRAMES), np.int32),
            }
            valid = batch["valid"]
            assert (np.diff(valid.astype(int), axis=1) <= 0).all()
            np.testing.assert_array_equal(batch["anchors"] == 3, ~valid)
            beyond = np.repeat(~valid, 320, axis=1) if signal == (16000,) else ~valid
            for name in records.SIGNALS:
                assert not batch[name][beyond].any()
            assert (batch["anchors"] <= 3).all()
            assert batch["text_mask"].any(axis=1).all()


class Growing:
    """Examples of which the third has another shape."""

    def __len__(self):
        return 2**32

    def __getitem__(self, index):
        return {"wave": np.zeros(4 if index < 2 else 5, np.float32)}


def test_examples_that_do_not_fit_into_one_array_are_refused():
    batches = BatchStream(Growing(), 4, process_index=0, process_count=1)
    with pytest.raises(ValueError, match=r"wave of examples is float32\[4\] and float32\[5\]"):
        next(batches)
    batches.close()


def test_waves_add_up(world):
    for batch in take(separation(config(world), 4), 3):
        np.testing.assert_array_equal(batch["mixture"], batch["target"] + batch["residual"])


def test_exact_spans_cover_the_target(world):
    exact = config(world, span_share=1.0, negative_share=0.0, subset_share=0.0)
    exact = replaced(exact, jitter_s=0.0, short_share=0.0, text_dropout=0.0)
    for batch in take(separation(exact, 4), 4):
        for target, anchors in zip(batch["target"], batch["anchors"], strict=True):
            np.testing.assert_array_equal(anchors == 1, energy.activity(target, RATE, HOP))


def test_text_is_dropped_only_where_spans_tell_the_sounds_apart(world):
    always = config(world, span_share=1.0, text_dropout=1.0, short_share=0.0)
    batches = take(separation(always, 8), 6)
    lengths = np.concatenate([batch["text_mask"].sum(axis=1) for batch in batches])
    assert (lengths == 1).any()  # the end token alone
    assert (lengths > 1).any()
    never = config(world, span_share=0.0, text_dropout=1.0)
    for batch in take(separation(never, 8), 2):
        assert (batch["text_mask"].sum(axis=1) > 1).all()


def test_the_same_again_after_resume_from_any_batch(world, cache):
    for cfg in (config(world), config(world, cache=cache)):
        whole = take(separation(cfg, 4), 5)
        first = separation(cfg, 4)
        take(first, 3)
        resumed = separation(cfg, 4)
        resumed.set_state(first.get_state())
        assert_equal(take(resumed, 2), whole[3:])
        other = take(separation(replaced(cfg, seed=1), 4), 1)
        assert (other[0]["mixture"] != whole[0]["mixture"]).any()


def test_every_record_of_the_cache_once_a_round(world, cache):
    whole = config(world, seconds=3.0, cache=cache, short_share=0.0, swap_share=0.0)
    batches = take(separation(whole, 8), 6)
    rounds = [np.concatenate([b["mixture"] for b in batches[i : i + 3]]) for i in (0, 3)]
    first, second = ({row.tobytes() for row in one} for one in rounds)
    assert len(first) == 24
    assert first == second
    assert (rounds[0] != rounds[1]).any()


def test_features_of_a_teacher_go_with_the_crop_of_the_target(world, tmp_path):
    cfg = config(world, seconds=3.0)
    write_cache(tmp_path / "features", cfg, 8, teacher=TEACHER)
    cached = config(world, cache=str(tmp_path / "features"), short_share=0.0, swap_share=0.5)
    cut = 0
    for batch in take(separation(cached, 4), 4):
        segments, offset = batch["teacher_features"], batch["teacher_features_offset"]
        assert (segments.shape, segments.dtype) == ((4, 11, 2), np.float16)
        assert offset.dtype == np.float32
        for row in range(4):
            segment_of = ((offset[row] + np.arange(FRAMES)) / 6).astype(int)  # of each frame
            assert segment_of[-1] < 11
            rms = batch["target"][row, :, 0]  # of each frame, by the toy codec
            for segment in np.unique(segment_of):
                frames = np.flatnonzero(segment_of == segment)
                number, segment_rms = segments[row, segment]
                if len(frames) == 6 and number < 12:
                    expected = np.sqrt(np.mean(np.square(rms[frames])))
                    np.testing.assert_allclose(segment_rms, expected, atol=2e-3)
            cut += offset[row] > 0
    assert cut
    with pytest.raises(UserError, match="another teacher: 'toy', not ''"):
        write_cache(tmp_path / "features", cfg, 8)


def test_waves_go_with_the_crop_and_the_prompt(world, tmp_path):
    folder = tmp_path / "waves"
    cfg = config(world, seconds=3.0)
    write_cache(folder, cfg, 8, waves=True)
    prompts = {"swap_share": 0.5, "absent_share": 0.3, "pair_share": 0.5}
    wanted = config(world, cache=str(folder), waves=True, short_share=0.5, **prompts)
    absent = 0
    for batch in take(separation(wanted, 4), 6):
        waves = batch["waves"]
        assert (waves.shape, waves.dtype) == ((4, 2, FRAMES * HOP), np.float16)
        by_frame = waves.astype(np.float32).reshape(4, 2, FRAMES, HOP)
        for row in range(4):
            # The toy codec's latents are the first samples of a frame, besides its RMS.
            for stem, name in enumerate(("target", "residual")):
                samples = batch[name][row, :, 1:]
                np.testing.assert_allclose(by_frame[row, stem, :, :3], samples, atol=2e-3)
            mixture = batch["mixture"][row, :, 1:]
            np.testing.assert_allclose(by_frame[row].sum(0)[:, :3], mixture, atol=2e-3)
            assert not waves[row, :, int(batch["valid"][row].sum()) * HOP :].any()
            absent += not waves[row, 0].any()
    assert absent
    without = take(separation(dataclasses.replace(wanted, waves=False), 4), 6)
    assert "waves" not in without[0]


def test_waves_that_a_cache_has_not_are_refused(world, cache, tmp_path):
    wanted = config(world, cache=cache, waves=True)
    with pytest.raises(UserError, match=r"no waves of its stems.*--data\.waves"):
        separation(wanted, 4)
    with pytest.raises(UserError, match="another waves: False, not True"):
        write_cache(cache, config(world, seconds=3.0), 24, waves=True)
