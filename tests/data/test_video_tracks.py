"""Video features lie in a mixture as the sound of their recording does, and reach the batches."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from sam_audio_jax.data import pipeline
from sam_audio_jax.data.arrange import Arranger, Placement
from sam_audio_jax.data.config import MixConfig
from sam_audio_jax.data.recording_table import make_table
from sam_audio_jax.data.records import pack, unpack
from sam_audio_jax.data.shards import FORMAT, Cache
from sam_audio_jax.data.source import load_manifest
from sam_audio_jax.data.video_tracks import VideoTracks, open_video_tracks
from sam_audio_jax.data.waves import Waves
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_jsonl, write_jsonl
from tests.data import toy

RATE, HOP, LENGTH = toy.RATE, toy.HOP, 6 * toy.RATE


class Ramps(Waves):
    """Recordings whose sample says where it is: from 1 to 2 in the first, 3 to 4 in the second."""

    def __init__(self):
        pass

    def length(self, number):
        return LENGTH

    def read(self, number, start=0, length=None):
        wave = 1 + 2 * number + np.arange(LENGTH, dtype=np.float32) / LENGTH
        return wave[start : LENGTH if length is None else start + length]


@pytest.fixture
def ramps(tmp_path):
    """Video features that say the same as the sound of the same recording."""
    paths = []
    for number in range(2):
        paths.append(str(tmp_path / f"{number}.npy"))
        track = 1 + 2 * number + (np.arange(600) + 0.5) / 600
        np.save(paths[-1], track[:, None].astype(np.float32))
    return VideoTracks(tuple(paths), (LENGTH, LENGTH), 1, HOP)


@pytest.mark.parametrize("samples", [2 * RATE, 20 * RATE])
@pytest.mark.parametrize("how", ["events", "repeated", "stems"])
def test_features_lie_where_their_sound_lies(ramps, samples, how):
    arranger = Arranger(MixConfig(), Ramps(), RATE, samples)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        match how:
            case "events":
                laid_out = arranger.events(0, 1.0 + 0.01 * seed, rng)
            case "repeated":
                laid_out = arranger.repeated(0, [0, 1], 1.0 - 0.01 * seed, rng)
            case _:
                laid_out = arranger.stems([0, 1], rng)[1]
        features = ramps.frames(laid_out.places, samples // HOP)[:, 0].astype(np.float32)
        sound = laid_out.wave[::HOP]
        assert features.any()
        # Cuts ring where a clip was resampled, and fade where it was cut.
        assert np.mean(np.abs(features - sound) > 0.01) < 0.1


def test_recordings_without_features_show_nothing(ramps):
    blind = dataclasses.replace(ramps, paths=(None, ramps.paths[1]))
    places = (Placement(0, 0, 1.0, 0, 5 * HOP), Placement(1, 0, 1.0, 5 * HOP, 5 * HOP))
    features = blind.frames(places, 20)
    assert (features[:5] == 0).all()
    assert (features[5:10] > 2).all()
    assert (features[10:] == 0).all()


@pytest.fixture(scope="module")
def seen_world(world, tmp_path_factory):
    """The small world of sound in which every recording has features, all ones times its number."""
    folder = tmp_path_factory.mktemp("seen")
    lines = list(read_jsonl(pathlib.Path(world)))
    for number, line in enumerate(lines, 1):
        line["path"] = str(pathlib.Path(world).parent / line["path"])
        line["video_features"] = f"{number}.npy"
        np.save(folder / f"{number}.npy", np.full((7, 3), number, np.float32))
    write_jsonl(folder / "manifest.jsonl", lines)
    shutil.copy(pathlib.Path(world).parent / "songs.jsonl", folder)
    return str(folder / "manifest.jsonl")


def test_mixtures_have_the_video_of_their_target(seen_world):
    cfg = toy.config(seen_world, video_dropout=0.0, recipes=(("sfx", "sfx", 1.0),))
    for batch in toy.take(toy.separation(cfg, 4), 2):
        assert batch["video"].shape == (4, 50, 3)
        for video, target in zip(batch["video"], batch["target"], strict=True):
            assert len(set(video.ravel().tolist()) - {0.0}) == 1  # of one recording
            silent = ~np.abs(target.reshape(50, HOP)).max(1).astype(bool)
            assert not video[np.r_[silent[0], silent[1:] & silent[:-1]]].any()
    gone = toy.replaced(cfg, video_dropout=1.0)
    (batch,) = toy.take(toy.separation(gone, 4), 1)
    assert not batch["video"].any()


def test_a_video_draws_last_so_that_all_else_stays(world, seen_world):
    for short_share in (0.0, 0.5):
        blind, seeing = (
            toy.take(toy.separation(toy.config(name, short_share=short_share), 4), 1)[0]
            for name in (world, seen_world)
        )
        assert "video" not in blind
        toy.assert_equal([blind], [{k: v for k, v in seeing.items() if k != "video"}])


def test_a_cache_keeps_the_videos_of_both_sounds(seen_world, tmp_path):
    cfg = toy.config(seen_world, video_dropout=0.0, short_share=0.5)
    tracks = pipeline.video_tracks(pipeline.mixer(cfg, RATE, HOP), HOP)
    toy.write_cache(tmp_path / "cache", cfg, 16, video=tracks)
    cache = Cache(tmp_path / "cache")
    assert (cache.index["format"], cache.index["video_width"]) == (FORMAT, 3)
    record = next(r for r in map(cache.__getitem__, range(16)) if r.target_video is not None)
    np.testing.assert_array_equal(unpack(pack(record)).target_video, record.target_video)
    cfg = dataclasses.replace(cfg, cache=str(tmp_path / "cache"))
    examples = pipeline.cached_examples(cfg, RATE, HOP, 50)
    seen = [examples[number] for number in range(32)]
    assert {example["video"].shape for example in seen} == {(50, 3)}
    assert sum(example["video"].any() for example in seen) > 16
    assert not any(example["video"][~example["valid"]].any() for example in seen)
    with pytest.raises(UserError, match="another video_width: 3, not 0"):
        toy.write_cache(tmp_path / "cache", dataclasses.replace(cfg, cache=""), 24)


def test_wrong_features_are_the_users_error(seen_world, tmp_path):
    line = next(iter(read_jsonl(pathlib.Path(seen_world))))
    write_jsonl(tmp_path / "manifest.jsonl", [line | {"video_features": "gone.npy"}])
    with pytest.raises(UserError, match=r"line 1: no video features at .*gone\.npy"):
        load_manifest(tmp_path / "manifest.jsonl")
    for name, content, message in (
        ("text", None, "cannot be read"),
        ("flat", np.zeros(3, np.float32), r"float32 of shape \(3,\); needed are floats"),
        ("whole", np.zeros((3, 3), np.int32), "are int32 of shape"),
    ):
        path = tmp_path / f"{name}.npy"
        if content is None:
            path.write_text("hello")
        else:
            np.save(path, content)
        lines = [line | {"video_features": str(path)}]
        write_jsonl(tmp_path / "manifest.jsonl", lines)
        recordings = load_manifest(tmp_path / "manifest.jsonl")
        with pytest.raises(UserError, match=message):
            open_video_tracks(make_table(recordings, ()), Ramps(), HOP)
