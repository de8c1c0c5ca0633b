"""The programs in examples/, each on a small recording."""

import json
import runpy

import av
import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.video.muxing import mux
from tests.children import ROOT
from tests.video.clips import greys
from tests.video.clips import write as write_video


@pytest.fixture
def run(folder):
    """Runs one of the programs in this process; returns its exit status."""

    def call(name: str, *arguments: str) -> int:
        main = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]
        return main([*map(str, arguments), "--checkpoint", str(folder)])

    return call


def test_podcasts_continue_and_name_what_failed(run, tmp_path, noise_of):
    episodes, out = tmp_path / "episodes", tmp_path / "clean"
    stems = out / "stems"
    assert run("podcasts", tmp_path, "--out", out) == 2  # nothing there
    for number, name in enumerate(("one.wav", "two.wav")):
        audio.write_wav(episodes / name, noise_of(1.0, number, channels=2), 8_000)
    assert run("podcasts", episodes, "--out", out) == 0
    first = (stems / "one.wav.target.wav").stat().st_mtime_ns
    audio.write_wav(episodes / "season 2" / "one.wav", noise_of(1.0, 2, channels=2), 8_000)
    (episodes / "broken.mp3").write_bytes(b"no sound")
    assert run("podcasts", episodes, "--out", out) == 1
    (failed,) = map(json.loads, (stems / "failed.jsonl").read_text().splitlines())
    assert failed["id"] == "broken.mp3"
    assert (stems / "one.wav.target.wav").stat().st_mtime_ns == first
    for name in ("one.wav", "two.wav", "season 2__one.wav"):
        parts = [audio.load(stems / f"{name}.{kind}.wav") for kind in ("target", "residual")]
        recording = audio.load(episodes / name.replace("__", "/")).samples
        np.testing.assert_allclose(sum(p.samples for p in parts), recording, atol=1e-6)


def test_results_of_podcasts_are_no_episodes(tmp_path):
    episodes = runpy.run_path(str(ROOT / "examples" / "podcasts.py"))["episodes"]
    out = tmp_path / "clean"
    for name in ("a.wav", "clean/stems/a.wav.target.wav", "cleaner/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [line["id"] for line in episodes(tmp_path, out)] == ["a.wav", "cleaner__b.wav"]


def pictures(path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]


@pytest.mark.parametrize("background", [None, -6.0])
def test_film_keeps_its_pictures_and_gets_another_sound(run, tmp_path, noise_of, background):
    silent = write_video(tmp_path / "silent.mkv", greys(10))
    film, out = tmp_path / "film.mkv", tmp_path / "out.mkv"
    mux(silent, noise_of(1.0, channels=2), 8_000, film)
    more = [] if background is None else ["--background-db", str(background)]
    assert run("film_dialogue", film, "--out", out, *more) == 0
    assert pictures(out) == pictures(film)
    before, after = audio.load(film), audio.load(out)
    assert len(after.samples) == 2
    assert after.samples.shape[1] == pytest.approx(before.samples.shape[1], abs=2_000)
    louder = np.square(after.samples).mean() / np.square(before.samples).mean()
    assert 0 < louder < 1  # a part of it


def test_what_cannot_be_a_film_is_one_line(run, tmp_path, capsys):
    assert run("film_dialogue", tmp_path / "gone.mp4", "--out", tmp_path / "out.mp4") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_stems_of_a_band_add_up(run, tmp_path, noise_of, capsys):
    song, out = tmp_path / "song.wav", tmp_path / "stems"
    audio.write_wav(song, noise_of(1.0, channels=2), 8_000)
    assert run("band_stems", song, "--out", out, "--stems", "drums", "bass guitar") == 0
    files = sorted(file.name for file in out.iterdir())
    assert files == ["bass_guitar.wav", "drums.wav", "rest.wav"]
    total = sum(audio.load(out / name).samples for name in files)
    np.testing.assert_allclose(total, audio.load(song).samples, atol=1e-6)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run("band_stems", song, "--out", tmp_path / "b", "--stems", "drums", "rest") == 2
    assert capsys.readouterr().err.startswith('error: --stems "rest" is the name of what no text')
    assert not (tmp_path / "b").exists()
