"""The latent cache: killed and extended, refused or damaged, and of earlier formats."""

import pathlib
import shutil

import msgpack
import numpy as np
import pytest

from sam_audio_jax.config import to_dict
from sam_audio_jax.data import pipeline, records, shards
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_json, write_json, writing_to
from sam_audio_jax.process_rank import ProcessRank
from tests.data.toy import (
    RATE,
    TEACHER,
    config,
    encode,
    replaced,
    separation,
    take,
    write_cache,
)


@pytest.fixture(scope="module")
def cache(world, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("cache") / "latents"
    write_cache(folder, config(world, seconds=3.0), 24)
    return str(folder)


def test_a_killed_preparation_goes_on_where_it_stopped(world, cache, tmp_path):
    cfg = config(world, seconds=3.0)
    calls = iter(range(9))

    def failing(waves):
        if next(calls, None) is None:
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
    with pytest.raises(UserError, match=r"another recipe\.seed: 0, not 5"):
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
    start = damaged.find(records.pack(shards.Cache(cache)[10])[200:240])
    damaged[start : start + 40] = bytes(40)
    path.write_bytes(damaged)
    read = [shards.Cache(folder)[number] for number in range(24)]
    assert [number for number, record in enumerate(read) if record is None] == [10]
    batches = take(separation(config(world, cache=str(folder)), 8), 3)
    assert all(np.isfinite(batch["mixture"]).all() for batch in batches)
    path.write_bytes(bytes(damaged[:100]))
    with pytest.raises(UserError, match="damaged shard"):
        shards.Cache(folder)


def test_shards_of_another_size_and_exchanged_ones_are_refused(cache, tmp_path):
    folder = tmp_path / "latents"
    shutil.copytree(cache, folder)
    first, second, third = sorted(folder.glob("*.arrayrecord"))
    third.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"another shard in the place of 00002\.arrayrecord"):
        [shards.Cache(folder)[number] for number in range(24)]
    second.unlink()
    writer = shards.array_record_module.ArrayRecordWriter(str(second), "group_size:1")
    writer.write(records.pack(shards.Cache(cache)[8]))
    writer.close()
    with pytest.raises(UserError, match=r"the 3 shards of .* have 17 records, not 24"):
        shards.Cache(folder)
    assert first.is_file()


def test_a_damaged_silence_is_named_and_written_again(world, cache, tmp_path):
    folder = tmp_path / "latents"
    shutil.copytree(cache, folder)
    path = folder / shards.SILENCE
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 0x40  # of the latents
    for damaged in (flipped, whole[:100], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"silence\.msgpack is damaged \(.*\): delete it"):
            shards.Cache(folder).silence()
    path.unlink()
    write_cache(folder, config(world, seconds=3.0), 24)
    assert path.read_bytes() == whole
    path.write_bytes(records.pack(shards.Cache(cache).silence()))  # as it was without a digest
    assert records.pack(shards.Cache(folder).silence()) == path.read_bytes()


def as_format_1(folder: pathlib.Path, cfg: DataConfig) -> None:
    """Rewrites the index of a cache as its first version wrote it, without a teacher."""
    parts = to_dict(cfg.source, free=False) | to_dict(cfg.mix)
    for name in ("plan.json", "cache.json"):
        index = read_json(folder / name)
        del index["format"], index["teacher"], index["segment_s"]
        index["recipe"] = parts | {"seed": cfg.seed}
        write_json(folder / name, index)


def test_a_cache_of_format_1_is_read_and_extended(world, tmp_path):
    cfg = config(world, seconds=3.0)
    folder = tmp_path / "old"
    write_cache(folder, cfg, 8)
    as_format_1(folder, cfg)
    cached = config(world, cache=str(folder))
    assert "teacher_features" not in take(separation(cached, 4), 1)[0]
    with pytest.raises(UserError, match=r"another recipe\.mix\.tilt_db: 6\.0, not 1\.0"):
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
    write_json(folder / "cache.json", read_json(folder / "cache.json") | {"format": 6})
    with pytest.raises(UserError, match="has format 6, this version reads 1 to 5"):
        shards.Cache(folder)


def test_two_processes_make_the_bytes_of_one_in_any_order(cache, world, tmp_path):
    """Neither waits for the other; the one that ends last finishes the cache."""
    cfg, folder, whole = config(world, seconds=3.0), tmp_path / "shared", pathlib.Path(cache)
    assert not write_cache(folder, cfg, 24, rank=ProcessRank(1, 2))
    with pytest.raises(UserError, match="no latent cache"):
        shards.Cache(folder)
    assert write_cache(folder, cfg, 24, rank=ProcessRank(0, 2))
    for path in whole.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_a_process_that_makes_a_cache_alone_is_alone(world, tmp_path):
    folder = tmp_path / "latents"
    folder.mkdir()
    with (
        writing_to(folder, writer=0, writers=2),
        pytest.raises(UserError, match="another process is"),
    ):
        write_cache(folder, config(world, seconds=3.0), 24)
    assert list(folder.iterdir()) == []


def test_an_extension_that_has_not_ended_changes_nothing(world, cache, tmp_path):
    """Every start of a training reads the same records, whatever another process is making."""
    folder = shutil.copytree(cache, tmp_path / "latents")
    cfg = config(world, seconds=3.0)
    assert not write_cache(folder, cfg, 48, rank=ProcessRank(1, 2))  # shards 3 and 5, not 4
    assert len(list(folder.glob("*.arrayrecord"))) == 5
    before, now = shards.Cache(cache), shards.Cache(folder)
    assert len(now) == len(before)
    assert all(records.pack(now[n]) == records.pack(before[n]) for n in range(len(before)))
    assert write_cache(folder, cfg, 24)  # the smaller one is finished, up to the gap
    assert len(shards.Cache(folder)) == 32
    assert write_cache(folder, cfg, 48)
    assert len(shards.Cache(folder)) == 48
