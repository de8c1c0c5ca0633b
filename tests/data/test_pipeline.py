import dataclasses
import itertools
import json
import pathlib
import shutil

import msgpack
import numpy as np
import pytest

from sam_audio_jax.config import to_dict
from sam_audio_jax.data import energy, pipeline, records, shards
from sam_audio_jax.data.config import DataConfig, SourceConfig
from sam_audio_jax.data.excerpts import ExcerptConfig
from sam_audio_jax.errors import UserError
from tests.data.toy import (
    HOP,
    RATE,
    TEACHER,
    assert_equal,
    config,
    encode,
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
    for batches, signal in (
        (separation(config(world, short_share=0.5), 6), (16000,)),
        (
            separation(config(world, short_share=0.5, cache=cache), 6),
            (FRAMES, 4),
        ),
    ):
        for batch in take(batches, 4):
            assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
                **{name: ((6, *signal), np.float32) for name in records.SIGNALS},
                **{"valid": ((6, FRAMES), bool), "text_mask": ((6, 40), bool)},
                **{"text_ids": ((6, 40), np.int32), "anchor_ids": ((6, 10), np.int32)},
                "anchor_alignment": ((6, FRAMES), np.int32),
            }
            valid = batch["valid"]
            assert (np.diff(valid.astype(int), axis=1) <= 0).all()
            np.testing.assert_array_equal(batch["anchor_alignment"] == 1, ~valid)
            beyond = np.repeat(~valid, 320, axis=1) if signal == (16000,) else ~valid
            for name in records.SIGNALS:
                assert not batch[name][beyond].any()
            assert (batch["anchor_alignment"] < 10).all()
            assert batch["text_mask"].any(axis=1).all()


def test_waves_add_up(world):
    for batch in take(separation(config(world), 4), 3):
        np.testing.assert_array_equal(batch["mixture"], batch["target"] + batch["residual"])


def test_exact_spans_cover_the_target(world):
    exact = config(world, **{"span_share": 1.0, "negative_share": 0.0, "subset_share": 0.0})
    exact = replaced(exact, jitter_s=0.0, short_share=0.0, text_dropout=0.0)
    for batch in take(separation(exact, 4), 4):
        for target, alignment in zip(batch["target"], batch["anchor_alignment"], strict=True):
            np.testing.assert_array_equal(alignment >= 2, energy.activity(target, RATE, HOP))


def test_text_is_left_out_only_where_spans_tell(world):
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


def test_workers_change_nothing_and_a_run_goes_on_with_other_workers(world):
    cfg = ExcerptConfig(source=SourceConfig(manifests=(world,)), seconds=0.5)
    alone = take(pipeline.codec_excerpts(cfg, RATE, HOP, 4), 6)
    assert alone[0]["wave"].shape == (4, 3840)  # 12 frames: 12.5 rounds to even
    many = dataclasses.replace(cfg, workers=2)
    batches = pipeline.codec_excerpts(many, RATE, HOP, 4)
    assert_equal(list(itertools.islice(batches, 5)), alone[:5])
    state = batches.get_state()
    batches.close()
    resumed = pipeline.codec_excerpts(cfg, RATE, HOP, 4)
    resumed.set_state(state)
    assert_equal(take(resumed, 1), alone[5:])


def test_processes_share_the_batch_of_one(world):
    cfg = ExcerptConfig(source=SourceConfig(manifests=(world,)), seconds=0.5)
    alone = take(pipeline.codec_excerpts(cfg, RATE, HOP, 4), 2)
    for process in (0, 1):
        part = pipeline.codec_excerpts(cfg, RATE, HOP, 4, process_index=process, process_count=2)
        assert_equal(
            take(part, 2),
            [{"wave": batch["wave"][2 * process : 2 * process + 2]} for batch in alone],
        )
    with pytest.raises(UserError, match="multiple of the 2 processes"):
        pipeline.codec_excerpts(cfg, RATE, HOP, 3, process_index=0, process_count=2)


def test_excerpts_are_loud_and_kinds_take_turns(world):
    cfg = ExcerptConfig(
        source=SourceConfig(manifests=(world,)), seconds=1.0, gain_db=(0.0, 0.0), mixed=0.0
    )
    batches = pipeline.codec_excerpts(cfg, RATE, HOP, 8)
    assert len(batches.items.kinds) == 4
    for batch in take(batches, 2):
        wave = batch["wave"]
        assert wave.dtype == np.float32
        assert (np.abs(wave).max(axis=1) <= 1.0).all()
        assert (np.sqrt(np.mean(wave**2, axis=1)) > 0.03).all()


def test_every_record_of_the_cache_once_a_round(world, cache):
    whole = config(world, seconds=3.0, cache=cache, short_share=0.0, swap_share=0.0)
    batches = take(separation(whole, 8), 6)
    rounds = [np.concatenate([b["mixture"] for b in batches[i : i + 3]]) for i in (0, 3)]
    first, second = ({row.tobytes() for row in one} for one in rounds)
    assert len(first) == 24
    assert first == second
    assert (rounds[0] != rounds[1]).any()


def test_a_killed_preparation_goes_on_where_it_stopped(world, cache, tmp_path):
    cfg = config(world, seconds=3.0)
    left = [9]

    def failing(waves):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return encode(waves)

    folder = tmp_path / "latents"
    with pytest.raises(KeyboardInterrupt):
        write_cache(folder, cfg, 24, failing)
    with pytest.raises(UserError, match="no latent cache"):
        shards.Cache(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.arrayrecord")}
    assert 0 < len(before) < 3
    write_cache(folder, cfg, 24)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    ours, theirs = shards.Cache(folder), shards.Cache(cache)
    for number in range(24):
        assert records.pack(ours[number]) == records.pack(theirs[number])


def test_a_cache_of_another_recipe_or_codec_is_refused(world, cache, tmp_path):
    cfg = config(world, seconds=3.0)
    with pytest.raises(UserError, match="another recipe"):
        write_cache(cache, replaced(cfg, seed=5), 24)
    with pytest.raises(UserError, match="other weights"):
        write_cache(cache, cfg, 24, lambda waves: encode(waves) + 1.0)
    with pytest.raises(UserError, match="hop 160"):
        pipeline.separation_batches(config(world, cache=cache), RATE, 160, 4)


def test_damaged_records_are_skipped(world, cache, tmp_path):
    folder = tmp_path / "latents"
    shutil.copytree(cache, folder)
    path = sorted(folder.glob("*.arrayrecord"))[1]
    damaged = bytearray(path.read_bytes())
    place = damaged.find(records.pack(shards.Cache(cache)[10])[200:240])
    damaged[place : place + 40] = bytes(40)
    path.write_bytes(damaged)
    read = [shards.Cache(folder)[number] for number in range(24)]
    assert [number for number, record in enumerate(read) if record is None] == [10]
    batches = take(separation(config(world, cache=str(folder)), 8), 3)
    assert all(np.isfinite(batch["mixture"]).all() for batch in batches)
    path.write_bytes(bytes(damaged[:100]))
    with pytest.raises(UserError, match="damaged shard"):
        shards.Cache(folder)


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
            place = ((offset[row] + np.arange(FRAMES)) / 6).astype(int)
            assert place[-1] < 11
            rms = batch["target"][row, :, 0]  # of each frame, by the toy codec
            loud = segments[row, place, 1]
            whole = [np.flatnonzero(place == p) for p in np.unique(place)]
            for frames in (frames for frames in whole if len(frames) == 6):
                want = np.sqrt(np.mean(np.square(rms[frames])))
                if segments[row, place[frames[0]], 0] < 12:
                    np.testing.assert_allclose(loud[frames[0]], want, atol=2e-3)
            cut += offset[row] > 0
    assert cut
    with pytest.raises(UserError, match="another teacher: 'toy', not ''"):
        write_cache(tmp_path / "features", cfg, 8)


def as_format_1(folder: pathlib.Path, cfg: DataConfig) -> None:
    """Rewrites a cache as the version before teachers and parts of the config left it."""
    parts = to_dict(cfg.source) | to_dict(cfg.mix)
    for name in ("plan.json", "cache.json"):
        index = json.loads((folder / name).read_text())
        del index["format"], index["teacher"], index["segment_s"]
        index["recipe"] = parts | {"seed": cfg.seed}
        (folder / name).write_text(json.dumps(index))


def test_a_cache_of_format_1_is_read_and_extended(world, tmp_path):
    cfg = config(world, seconds=3.0)
    folder = tmp_path / "old"
    write_cache(folder, cfg, 8)
    as_format_1(folder, cfg)
    cached = config(world, cache=str(folder))
    assert "teacher_features" not in take(separation(cached, 4), 1)[0]
    with pytest.raises(UserError, match="another recipe"):
        write_cache(folder, replaced(cfg, tilt_db=1.0), 16)
    write_cache(folder, cfg, 16)
    assert len(shards.Cache(folder)) == 16
    assert shards.Cache(folder).index["format"] == shards.FORMAT


def test_features_of_format_1_have_another_name(world, tmp_path):
    write_cache(tmp_path / "new", config(world, seconds=3.0), 8, teacher=TEACHER)
    for number in range(8):
        record = shards.Cache(tmp_path / "new")[number]
        fields = msgpack.unpackb(records.pack(record))
        for name, old_name in records.FEATURES.items():
            if name in fields:
                fields[old_name] = fields.pop(name)
        old = records.unpack(msgpack.packb(fields))
        np.testing.assert_array_equal(old.target_features, record.target_features)
        assert records.pack(old) == records.pack(record)


def test_a_cache_of_a_later_format_is_refused_in_one_line(cache, tmp_path):
    folder = tmp_path / "latents"
    shutil.copytree(cache, folder)
    index = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(index | {"format": 3}))
    with pytest.raises(UserError, match="has format 3, this version reads 1 to 2"):
        shards.Cache(folder)
