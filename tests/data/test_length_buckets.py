import dataclasses
import itertools

import numpy as np
import pytest

from sam_audio_jax.data import records, shards
from sam_audio_jax.data.config import BatchConfig, DataConfig
from sam_audio_jax.data.length_buckets import ROUND, Schedule
from sam_audio_jax.errors import UserError
from tests.data import toy
from tests.data.toy import HOP, RATE, assert_equal, separation, take, write_cache

BUCKETS = (1.0, 1.6, 2.0)  # 25, 40, 50 frames
BUDGET, MULTIPLE = 450, 4


def config(world: str, **fields) -> DataConfig:
    budget = {"token_budget": BUDGET, "buckets_s": BUCKETS, "row_multiple": MULTIPLE}
    return toy.config(world, **budget | fields)


@pytest.fixture(scope="module")
def cache(world, tmp_path_factory) -> str:
    """24 mixtures of 1.8 s (45 frames)."""
    folder = tmp_path_factory.mktemp("cache") / "latents"
    write_cache(folder, toy.config(world, seconds=1.8, target_repeats=0.0, seed=1), 24)
    return str(folder)


@pytest.fixture(params=["mixed", "cached"])
def cfg(request, world, cache) -> DataConfig:
    return config(world, cache=cache if request.param == "cached" else "")


def test_a_batch_has_one_length_and_the_rows_that_the_budget_holds(cfg):
    batches = separation(cfg)
    assert batches.frames == 0
    seen = set()
    for batch in itertools.islice(batches, 12):
        rows, frames = batch["valid"].shape
        seen.add((rows, frames))
        assert batches.frames == rows * frames <= BUDGET
        shapes = {name: array.shape[:2] for name, array in batch.items()}
        signal = (rows, frames) if cfg.cache else (rows, frames * HOP)
        assert shapes == dict.fromkeys(records.SIGNALS, signal) | {
            **{"valid": (rows, frames), "anchors": (rows, frames)},
            **{"text_ids": (rows, 40), "text_mask": (rows, 40)},
        }
    batches.close()
    assert seen == {(16, 25), (8, 40), (8, 50)}  # 18, 11 and 9 in multiples of 4


def test_lengths_fit_the_bucket_and_nothing_leaks_into_padding(cfg):
    before = {25: 12, 40: 25, 50: 40}
    sizes = {frames: set() for frames in before}
    for batch in take(separation(cfg), 12):
        valid, frames = batch["valid"], batch["valid"].shape[1]
        assert (np.diff(valid.astype(int), axis=1) <= 0).all()
        assert (valid.sum(axis=1) > before[frames]).all()
        sizes[frames] |= set(valid.sum(axis=1))
        np.testing.assert_array_equal(batch["anchors"] == 3, ~valid)
        for name in records.SIGNALS:
            signal = batch[name].reshape(*valid.shape, -1)
            assert not signal[~valid].any()
            assert signal[valid].any(axis=-1).mean() > 0.3
        if not cfg.cache:
            np.testing.assert_array_equal(batch["mixture"], batch["target"] + batch["residual"])
    longest = 45 if cfg.cache else 50  # records are not longer
    assert max(sizes[25]) == 25
    assert max(sizes[50]) == longest
    assert all(len(lengths) > 3 for lengths in sizes.values())


def test_every_batch_is_nearly_full():
    """The published budget of `small`: nine tenths of it are frames of the batch, and 3/4 real."""
    cfg = BatchConfig(
        token_budget=96_000, buckets_s=(5.0, 7.5, 10.0, 15.0, 20.0, 30.0), row_multiple=16
    )
    schedule = Schedule(cfg, 0, 25.0)
    for bucket in schedule.buckets:
        assert bucket.rows % 16 == 0
        assert 0.9 * 96_000 < bucket.rows * bucket.frames <= 96_000
        rng = np.random.default_rng(0)
        real = np.mean([bucket.size(bucket.frames, rng) for _ in range(200)])
        assert real > 0.74 * bucket.frames


def test_each_round_has_its_own_order_and_every_bucket_its_share_of_frames():
    cfg = BatchConfig(token_budget=1_000, buckets_s=(1.0, 2.0, 4.0), row_multiple=1)
    for shares, expected in (((), (1 / 3,) * 3), ((6.0, 3.0, 1.0), (0.6, 0.3, 0.1))):
        schedule = Schedule(dataclasses.replace(cfg, bucket_shares=shares), 0, 25.0)
        steps = [schedule.bucket(step) for step in range(ROUND, 2 * ROUND)]
        frames = [
            sum(b.rows * b.frames for b in steps if b is bucket) for bucket in schedule.buckets
        ]
        np.testing.assert_allclose(np.divide(frames, sum(frames)), expected, atol=0.002)
        assert steps != [schedule.bucket(step) for step in range(ROUND)]
        other = Schedule(dataclasses.replace(cfg, bucket_shares=shares), 1, 25.0)
        assert steps != [other.bucket(step) for step in range(ROUND, 2 * ROUND)]
        following = itertools.pairwise(range(ROUND - 30, ROUND + 30))
        for step, after in following:  # items are numbered without gaps, also between rounds
            assert schedule.first(after) - schedule.first(step) == schedule.bucket(step).rows
        assert schedule.first(0) == 0


@pytest.mark.processes
def test_workers_change_nothing(world):
    """Starts two workers, each of which imports JAX."""
    alone = take(separation(config(world)), 5)
    assert_equal(take(separation(config(world, workers=2)), 5), alone)


def test_processes_pick_the_same_bucket_and_share_its_rows(cfg):
    alone = take(separation(cfg), 3)
    for count in (2, 4):
        for process in range(count):
            shared = separation(cfg, process_index=process, process_count=count)
            ours = take(shared, 3)
            assert shared.frames == alone[-1]["valid"].size
            share = [
                {name: np.split(rows, count)[process] for name, rows in batch.items()}
                for batch in alone
            ]
            assert_equal(ours, share)
    with pytest.raises(UserError, match=r"rows 4 must be a positive multiple of the 3 processes"):
        separation(cfg, process_index=0, process_count=3)


def test_the_same_again_after_resume_from_any_step(cfg):
    whole = take(separation(cfg), 6)
    for count in range(6):
        first = separation(cfg)
        take(first, count)
        state = first.get_state()
        assert state == {"batches": count}
        resumed = separation(cfg)
        resumed.set_state(state)
        assert_equal(take(resumed, 1), whole[count : count + 1])


def test_a_round_of_the_cache_has_every_record_once(world, cache):
    cfg = config(world, cache=cache, token_budget=200, buckets_s=(1.8,), swap_share=0.0)
    batches = take(separation(cfg), 6)  # 4 records each
    stored = shards.Cache(cache)
    mixtures = [stored[number].mixture.tobytes() for number in range(24)]
    numbers = []
    for batch in batches:
        for mixture, valid in zip(batch["mixture"], batch["valid"], strict=True):
            crop = mixture[valid].astype(np.float16).tobytes()
            numbers += [number for number, whole in enumerate(mixtures) if crop in whole]
    assert sorted(numbers) == list(range(24))


def test_a_crop_always_has_some_of_the_target(world, cache):
    """The records' targets are events between silences; half a second is often beside them."""
    cfg = config(world, cache=cache, token_budget=200, buckets_s=(0.5,), swap_share=0.0)
    stored = shards.Cache(cache)
    targets = [stored[number].target_active for number in range(24)]
    beside = [not active[start : start + 7].any() for active in targets for start in range(38)]
    assert np.mean(beside) > 0.1
    for batch in take(separation(cfg), 6):
        assert batch["target"].any(axis=(1, 2)).all()
        assert ((batch["target"] != 0).any(axis=2).sum(axis=1) >= 5).all()


def test_a_bucket_that_no_record_reaches_is_the_users_error(world, cache):
    with pytest.raises(UserError, match=r"too short for the last, they have 1\.8 s"):
        separation(config(world, cache=cache, buckets_s=(1.0, 1.8, 2.0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_budget": 0}, r"token_budget=0 and data\.batches\.buckets_s=.* need each other"),
        ({"buckets_s": ()}, r"data\.batches\.buckets_s=\(\) need each other"),
        ({"buckets_s": (2.0, 1.0)}, "must be positive and rise"),
        ({"bucket_shares": (1.0, 1.0)}, r"one for each of data\.batches\.buckets_s"),
        ({"bucket_shares": (1.0, 0.0, 1.0)}, "bucket_shares=.* each a finite number above 0"),
        ({"row_multiple": 0}, r"data\.batches\.row_multiple=0 must be a whole number from 1"),
        ({"buckets_s": (1.0, 1.01)}, r"are \[25, 25\] frames at 25 Hz; they must rise"),
        (
            {"token_budget": 199},
            r"199 is less than data\.batches\.row_multiple=4 items of 50 frames \(2 s\)",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_the_users_error(changes, message):
    with pytest.raises(UserError, match=message):
        Schedule(config("none", **changes).batches, 0, RATE / HOP)
