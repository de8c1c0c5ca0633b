"""Videos with masks in `prepare`: made once, kept through kills, refused by reason."""

import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.cli import prepare, train
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.data import pipeline, shards, tower_tracks
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_jsonl, write_jsonl, writing_to
from sam_audio_jax.infer.video_prompts import Clip
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.frozen import open_vision
from tests import tiny
from tests.data import toy
from tests.data.toy import HOP, RATE
from tests.tower_model import write_model
from tests.video.clips import HEIGHT, WIDTH, disc, greys, picture_of
from tests.video.clips import write as write_video

ITEMS, FRAMES = 16, 7  # mixtures; pictures of each clip
REASONS = {"video without mask": 1, "unusable video": 1, "no file": 1}


@pytest.fixture(scope="module")
def filmed(world, tmp_path_factory) -> str:
    """Six effects of the small world: three with a masked clip, three whose video is of no use."""
    folder = tmp_path_factory.mktemp("filmed")
    effects = [line for line in read_jsonl(world) if line["category"] == "sfx"]
    np.savez(folder / "0.npz", mask=disc(FRAMES))
    write_video(folder / "1 mask.mp4", picture_of(disc(FRAMES)))
    (folder / "2.json").write_text(json.dumps([[4, 4, 20, 20]] * FRAMES))
    (folder / "4.mp4").write_bytes(b"no video" * 100)
    masks = ["0.npz", "1 mask.mp4", "2.json", None, "0.npz", "gone.npz"]
    for number, (line, mask) in enumerate(zip(effects, masks, strict=True)):
        line["path"] = str(pathlib.Path(world).parent / line["path"])
        line |= {"video": f"{number}.mp4", "mask": mask}
        if number != 4:
            bright = np.broadcast_to(np.uint8(40 + 30 * number), (FRAMES, HEIGHT, WIDTH, 3))
            write_video(folder / f"{number}.mp4", bright if number else greys(FRAMES))
    write_jsonl(folder / "manifest.jsonl", effects)
    return str(folder / "manifest.jsonl")


@pytest.fixture
def config(filmed):
    return toy.config(filmed, seconds=1.0, video_dropout=0.0, recipes=(("sfx", "sfx", 1.0),))


class MeanColour:
    """A tower whose features are the mean of each channel; it counts what it has looked at."""

    def __init__(self, most: int = 99):
        self.seen, self.most = [], most

    def __call__(self, clip, times):
        pictures = np.concatenate(list(clip.at(times)))
        if clip.path is not None:
            if len(self.seen) == self.most:
                raise KeyboardInterrupt
            self.seen.append(clip.path.name)
        return pictures.mean(axis=(1, 2)) / 255


def write(folder, config, tower, items=ITEMS, name="toy", **changes):
    mixer = pipeline.mixer(config, RATE, HOP)
    places = {"name": name, "folder": folder}
    with tower_tracks.open_tower_tracks(mixer, RATE, HOP, tower, **places) as tracks:
        assert toy.write_cache(folder, config, items, video=tracks, **changes)
    return tracks


@pytest.fixture(scope="module")
def whole(filmed, tmp_path_factory):
    """An undisturbed cache, its tower and the features."""
    cfg = toy.config(filmed, seconds=1.0, video_dropout=0.0, recipes=(("sfx", "sfx", 1.0),))
    folder, tower = tmp_path_factory.mktemp("whole") / "cache", MeanColour()
    return folder, tower, write(folder, cfg, tower)


def test_each_video_is_looked_at_once_and_those_of_no_use_are_counted(whole):
    folder, tower, tracks = whole
    assert sorted(tower.seen) == ["0.mp4", "1.mp4", "2.mp4"]
    assert tracks.refusals.counts == REASONS
    assert "has no mask" in tracks.refusals.first["video without mask"].text
    assert len(list((folder / "video").glob("*.npy"))) == 3
    assert not list(folder.rglob(".*part*"))


def test_features_are_those_of_the_equal_parts_of_a_recording(whole):
    features = whole[2].track(0)[:, 0].astype(np.float32)
    assert features.dtype == np.float32
    assert len(features) == 18  # 0.7 s at 25 Hz, rounded up
    shown = np.rint(10 * np.arange(18) * 0.7 / 18).astype(int)  # of ten pictures a second
    levels = (16 + 8 * np.minimum(shown, FRAMES - 1)) / 255 * disc(FRAMES).mean(axis=(1, 2))[0]
    np.testing.assert_allclose(features, levels, atol=0.01)


def test_training_from_the_cache_gets_the_features_of_its_targets(config, whole):
    folder, _, tracks = whole
    cache = shards.Cache(folder)
    assert (cache.index["vision"], cache.index["video_width"]) == ("toy", 3)
    known = {row.tobytes() for number in range(3) for row in np.asarray(tracks.track(number))}
    seen = [cache[number].target_video for number in range(ITEMS)]
    assert 0 < sum(one is None for one in seen) < ITEMS
    for one in seen:
        assert one is None or {row.tobytes() for row in one if row.any()} <= known
    cached = toy.replaced(config, cache=str(folder))
    (batch,) = toy.take(toy.separation(cached, 8), 1)
    assert batch["video"].shape == (8, 25, 3)
    assert batch["video"].any()


def test_killed_at_any_video_it_ends_with_the_bytes_of_an_undisturbed_run(config, whole, tmp_path):
    folder, undisturbed, _ = whole
    out, seen = tmp_path / "cache", []
    for most in itertools.repeat(1):
        tower = MeanColour(most)
        try:
            write(out, config, tower)
        except KeyboardInterrupt:
            seen += tower.seen
            continue
        seen += tower.seen
        break
    assert sorted(seen) == sorted(undisturbed.seen)
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == names
    for name in names:
        assert (out / name).read_bytes() == (folder / name).read_bytes(), name


def test_an_extended_cache_looks_at_no_video_again_but_for_a_damaged_file(
    config, whole, tmp_path, caplog
):
    out, tower = tmp_path / "cache", MeanColour()
    shutil.copytree(whole[0], out)
    tracks = write(out, config, tower, items=2 * ITEMS)
    assert not tower.seen
    assert tracks.refusals.counts == REASONS
    path = next((out / "video").glob("*.npy"))
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    write(out, config, tower, items=4 * ITEMS)
    assert len(tower.seen) == 1
    assert "is damaged: its video is looked at again" in caplog.text
    assert path.read_bytes() == intact


def test_a_cache_of_another_tower_is_refused(config, whole):
    with pytest.raises(UserError, match="another vision: 'toy', not 'mine'"):
        write(whole[0], config, MeanColour(), name="mine")
    with pytest.raises(UserError, match="other weights of the tower toy"):
        write(whole[0], config, lambda *of: MeanColour()(*of) * np.array([1, 2, 3]))
    with pytest.raises(UserError, match="another video_width: 3, not 0"):
        toy.write_cache(whole[0], config, ITEMS)


def test_a_second_run_leaves_the_unfinished_features_of_the_first(whole, filmed):
    folder = whole[0] / "video"
    part = folder / ".0.12345678.part.npy"
    mixer = pipeline.mixer(toy.config(filmed), RATE, HOP)
    with writing_to(folder, writer=0, writers=1):
        part.touch()
        refused = pytest.raises(UserError, match="another process is writing to")
        places = {"name": "toy", "folder": whole[0]}
        with refused, tower_tracks.open_tower_tracks(mixer, RATE, HOP, MeanColour(), **places):
            pass
        assert part.exists()
    part.unlink()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model") / "folder"))


def vision_config(model: str, width: int) -> TrainConfig:
    """A training with a tower, whose separator takes features of this width."""
    return TrainConfig(separator=SeparatorConfig(video_width=width), vision_checkpoint=model)


def test_what_cannot_make_features_is_refused_in_one_line(world, model, tmp_path):
    codec = nnx.eval_shape(lambda: Codec(tiny.CODEC, rngs=Rngs(0)))
    with pytest.raises(UserError, match="vision_checkpoint=tiny has no vision tower: name a"):
        open_vision(vision_config("tiny", 4), codec, None)
    vision = open_vision(vision_config(model, 5), codec, None)
    mixer = pipeline.mixer(toy.config(world), RATE, HOP)
    places = {"name": model, "folder": tmp_path / "cache"}
    refused = pytest.raises(UserError, match=r"vision_checkpoint=.*has none with a video")
    with refused, tower_tracks.open_tower_tracks(mixer, RATE, HOP, vision.at, **places):
        pass
    with pytest.raises(UserError, match="the vision tower makes 4 features of a frame"):
        vision.at(Clip(source=np.zeros((1, 8, 8, 3), np.uint8)), np.zeros(1))
    assert open_vision(TrainConfig(), codec, None) is None


def test_the_command_makes_features_by_the_tower_of_a_model(filmed, model, tmp_path, capsys):
    path, out = tmp_path / "config.py", tmp_path / "cache"
    path.write_text("from sam_audio_jax.train.config import TrainConfig\nCONFIG = TrainConfig()\n")
    flags = [str(path), "--codec-checkpoint", model, "--data.source.manifests", filmed]
    flags += ["--data.mix.seconds", "1", "--data.mix.recipes", "sfx", "sfx", "1"]
    flags += ["--separator.video-width", "4", "--vision-checkpoint", model]
    assert prepare.main([*flags, "--out", str(out), "--items", "1"]) == 0
    assert "videos that are not used: 1 " in capsys.readouterr().err
    cache = shards.Cache(out)
    found = [cache[number].target_video for number in range(64)]
    shown = np.concatenate([one for one in found if one is not None])
    assert shown.shape[1] == 4
    assert shown.any()
    assert np.isfinite(shown).all()
    assert train.main([*flags, "--workdir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: vision_checkpoint=")
    assert "there is no data.cache" in error
