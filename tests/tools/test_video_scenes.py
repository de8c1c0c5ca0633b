"""Composed clips: what is seen of each object, what sounds, and that a seed says all of it."""

import pathlib

import numpy as np
import pytest
import soundfile
from PIL import Image

from sam_audio_jax.files import read_jsonl
from sam_audio_jax.infer.video_prompts import Clip
from tests.tools import small_sources
from tools import video_scenes
from tools.scene_pictures import SIZE, Motion, Scene

SCENES = 3
COLOURS = {"fan humming": 0, "kettle whistling": 2}  # brightest channel


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    return small_sources.write(tmp_path_factory.mktemp("source"))


def compose(source: pathlib.Path, out: pathlib.Path, *flags: str) -> pathlib.Path:
    argv = ["--source", str(source), "--out", str(out), "--count", str(SCENES), *flags]
    assert video_scenes.main(argv) == 0
    return out


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> pathlib.Path:
    return compose(source, tmp_path_factory.mktemp("scenes") / "scenes")


def test_of_two_objects_in_one_place_the_one_in_front_is_seen():
    red, blue = (Image.new("RGBA", (9, 9), colour) for colour in ("red", "blue"))
    still = Motion((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), flipped=False, cycles=1.0, phase=0.0)
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    small = Motion((0.5, 0.5), (0.5, 0.5), (0.25, 0.25), flipped=False, cycles=1.0, phase=0.0)
    picture, (behind, front) = Scene(black, (red, blue), (still, small), (0, 1)).at(0.3)
    assert front.sum() == (SIZE // 4) ** 2
    assert behind.sum() == (SIZE // 2) ** 2 - front.sum()
    assert (picture[front] == (0, 0, 255)).all()
    assert (picture[behind] == (255, 0, 0)).all()
    assert not picture[~(front | behind)].any()


def test_a_mask_shows_the_object_whose_sound_is_in_its_line(folder):
    for line in read_jsonl(folder / "manifest.jsonl"):
        clip = Clip(source=folder / line["video"], mask=str(folder / line["mask"]))
        (pictures,) = clip.at(np.arange(20) / 5)
        shown = pictures[pictures.max(axis=-1) > 100]
        assert len(shown)
        assert np.mean(shown.argmax(axis=-1) == COLOURS[line["caption"]]) > 0.9
        wave, rate = soundfile.read(folder / line["path"])
        loudest = np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)
        assert loudest == pytest.approx(small_sources.OBJECTS[line["caption"]][1], abs=20)


def test_the_sum_of_both_sounds_cannot_clip_and_has_silences(folder):
    lines = read_jsonl(folder / "manifest.jsonl")
    assert [line["scene"] for line in lines] == ["00000"] * 2 + ["00001"] * 2 + ["00002"] * 2
    for one, other in zip(lines[::2], lines[1::2], strict=True):
        assert one["caption"] != other["caption"]
        assert one["video"] == other["video"]
        waves = [soundfile.read(folder / line["path"])[0] for line in (one, other)]
        assert len(waves[0]) == len(waves[1]) == video_scenes.SECONDS * video_scenes.SAMPLE_RATE
        assert 0.01 < np.abs(sum(waves)).max() < 0.95
        assert all(np.mean(wave == 0) > 0.1 for wave in waves)


def test_the_same_seed_gives_the_same_files_and_another_one_others(source, folder, tmp_path):
    same = compose(source, tmp_path / "same")
    assert sorted(p.name for p in same.iterdir()) == sorted(p.name for p in folder.iterdir())
    for path in folder.glob("*.[fmj]*"):  # flac, mp4, jsonl
        assert path.read_bytes() == (same / path.name).read_bytes(), path.name
    other = compose(source, tmp_path / "other", "--seed", "5")
    assert (other / "00000.mp4").read_bytes() != (folder / "00000.mp4").read_bytes()


def test_validation_recordings_are_seen_by_pictures_of_the_training(source, tmp_path):
    lines = read_jsonl(compose(source, tmp_path / "valid", "--split", "valid") / "manifest.jsonl")
    assert {line["recording"] for line in lines} == {f"{name} valid.wav" for name in COLOURS}
    assert {line["split"] for line in lines} == {"valid"}
    assert {line["picture"] for line in lines} == set(COLOURS)


def test_a_folder_without_the_unseen_pictures_is_one_line(source, tmp_path, capsys):
    flags = ["--source", str(source), "--out", str(tmp_path / "out"), "--unseen", str(source)]
    assert video_scenes.main(flags) == 2
    assert "it must be the stamps of Tux Paint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
