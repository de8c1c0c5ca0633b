"""launch/separate.py: a real process, every kind of wrong input, nothing half-made."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.cli import separate as command
from tests.video.clips import frames_at, greys
from tests.video.clips import write as write_video

ROOT = pathlib.Path(__file__).parents[2]
DOOR = ROOT / "launch" / "separate.py"


@pytest.fixture(scope="module")
def door():
    return command.main


@pytest.fixture
def street(tmp_path, noise_of):
    """A stereo recording of 1.01 s."""
    audio.write_wav(tmp_path / "street.wav", noise_of(2.02, channels=2), 16_000)
    return str(tmp_path / "street.wav")


def test_one_recording_in_a_process_of_its_own(door, folder, street, tmp_path):
    said = [street, "--text", "dog", "--span", "+", "0.1", "0.5", "--checkpoint", str(folder)]
    said += ["--span", "-", "0.6", "0.9", "--refine", "wiener", "--seed", "3"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    done = subprocess.run(
        [sys.executable, str(DOOR), *said, "--out", str(tmp_path / "a")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert door([*said, "--out", str(tmp_path / "b")]) == 0
    names = ["residual.wav", "spectrogram.png", "target.wav"]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    stems = [audio.load(tmp_path / "a" / f"{name}.wav") for name in ("target", "residual")]
    assert {stem.sample_rate for stem in stems} == {16_000}
    mixture = audio.load(street).samples
    np.testing.assert_array_equal(stems[0].samples + stems[1].samples, mixture)
    assert not list(tmp_path.glob(".*"))  # no temporary folder stays


def wrong_inputs(folder: pathlib.Path, street: str) -> dict[str, tuple[list[str], str]]:
    place = pathlib.Path(street).parent
    (place / "text.wav").write_text("no sound")
    audio.write_wav(place / "empty.wav", np.zeros((1, 0)), 8_000)
    audio.write_wav(place / "silent.wav", np.zeros((1, 800)), 8_000)
    audio.write_wav(place / "nan.wav", np.full((1, 800), np.nan), 8_000)
    np.save(place / "noise.npy", np.zeros((3, 3), np.float32))
    (place / "items.jsonl").write_text('{"id": "a"}\n')
    (place / "good.jsonl").write_text('{"id": "a", "audio": "street.wav"}\n')
    write_video(place / "street.mkv", np.zeros((3, 32, 32, 3), np.uint8))
    (place / "song.mp4").write_bytes((place / "empty.wav").read_bytes())
    np.savez(place / "small.npz", mask=np.ones((3, 8, 8), bool))
    np.savez(place / "short.npz", mask=np.ones((2, 32, 32), bool))
    (place / "full").mkdir()
    (place / "full" / "thesis.txt").write_text("x")
    checkpoint = ["--checkpoint", str(folder)]
    seen = [street, "--video", str(place / "street.mkv"), *checkpoint]
    return {
        "no input": ([], "give either one INPUT or --manifest"),
        "both": ([street, "--manifest", "x"], "give either one INPUT"),
        "missing": ([str(place / "none.wav")], "no sound file at"),
        "undecodable": ([str(place / "text.wav")], "text.wav"),
        "zero length": ([str(place / "empty.wav")], "empty.wav"),
        "silent": ([str(place / "silent.wav")], "is silent"),
        "nan": ([str(place / "nan.wav")], "NaN"),
        "span outside": ([street, "--span", "+", "0.5", "9"], "must have start < end"),
        "span backwards": ([street, "--span", "+", "0.5", "0.2"], "must have start < end"),
        "span token": ([street, "--span", "dog", "0.5", "0.9"], "'+' (sounds)"),
        "span short": ([street, "--span", "+", "0.5"], "expected 3 arguments"),
        "noise": ([street, "--noise", str(place / "noise.npy"), *checkpoint], "shape (3, 3)"),
        "no noise": ([street, "--noise", str(place / "n.npy")], "no noise file"),
        "steps": ([street, "--steps", "0", *checkpoint], "steps=0 must be 1 or more"),
        "method": ([street, "--method", "rk4"], "invalid choice: 'rk4'"),
        "checkpoint": ([street, "--checkpoint", "tinny"], "no checkpoint 'tinny'; shipped:"),
        "option": ([street, "--masks", "x"], "--masks"),
        "mask alone": ([street, "--mask", "x"], "--mask needs --video"),
        "mask size": ([*seen, "--mask", str(place / "small.npz")], "8 x 8 pixels, the video 32"),
        "mask length": ([*seen, "--mask", str(place / "short.npz")], "has 2 frames, the video has"),
        "no video": ([street, "--video", str(place / "none.mp4"), *checkpoint], "no video file"),
        "no frames": (
            [street, "--video", str(place / "song.mp4"), *checkpoint],
            "has no video stream",
        ),
        "mask keeps": ([*seen, "--mask-keeps", "sound"], "invalid choice: 'sound'"),
        "no tower": ([street, "--video", seen[2]], "this model has no vision tower"),
        "no predictor": ([street, "--predict-spans", *checkpoint], "has no span predictor"),
        "no judge": ([street, "--candidates", "2", *checkpoint], "SpanIoU needs '+' spans"),
        "negative span": ([street, "--span", "+", "-1", "0.2"], "must have start < end"),
        "manifest": (["--manifest", str(place / "items.jsonl")], "line 1: audio must be"),
        "manifest text": (["--manifest", str(place / "good.jsonl"), "--text", "x"], "--text is"),
        "full folder": ([street, "--out", str(place / "full")], "holds other files (thesis.txt)"),
        "file as folder": ([street, "--out", street], "--out must name a folder"),
    }


def test_wrong_inputs_get_one_line_and_leave_nothing(
    door, model, folder, street, tmp_path, capsys, monkeypatch
):
    cases, load = wrong_inputs(folder, street), command.load
    here = str(folder)  # opened once for all of its cases
    monkeypatch.setattr(command, "load", lambda g: model if g.checkpoint == here else load(g))
    before = sorted(tmp_path.rglob("*"))
    for case, (arguments, said) in cases.items():
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        assert door([*arguments, *out]) == 2, case
        *_, error = capsys.readouterr().err.strip().splitlines()
        assert error.startswith("error: "), (case, error)
        assert said in error, (case, error)
        assert sorted(tmp_path.rglob("*")) == before, case


def test_a_video_gets_the_target_as_its_sound(door, folder, street, tmp_path):
    path = write_video(tmp_path / "street.mp4", greys(11))
    np.savez(tmp_path / "mask.npz", mask=np.ones((11, 24, 32), bool))
    said = [street, "--video", str(path), "--mask", str(tmp_path / "mask.npz"), "--candidates", "2"]
    said += ["--span", "+", "0.1", "0.5", "--checkpoint", str(folder)]
    assert door([*said, "--out", str(tmp_path / "out")]) == 0
    names = {"residual.wav", "spectrogram.png", "target.mp4", "target.wav"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    target = audio.load(tmp_path / "out" / "target.wav").samples
    heard = audio.load(tmp_path / "out" / "target.mp4")
    assert heard.sample_rate == 8_000
    assert np.corrcoef(heard.samples[0, : target.shape[1]], target[0])[0, 1] > 0.8
    seen = frames_at(tmp_path / "out" / "target.mp4", np.arange(11) / 10)
    np.testing.assert_array_equal(seen, frames_at(path, np.arange(11) / 10))
    assert door([*said, "--out", str(tmp_path / "out"), "--overwrite"]) == 0


def test_an_earlier_result_is_replaced_only_on_demand(door, folder, street, tmp_path, capsys):
    said = [street, "--text", "dog", "--checkpoint", str(folder), "--out", str(tmp_path / "out")]
    assert door(said) == 0
    first = (tmp_path / "out" / "target.wav").read_bytes()
    assert door([*said, "--seed", "5"]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "target.wav").read_bytes() == first
    assert door([*said, "--seed", "5", "--overwrite"]) == 0
    assert (tmp_path / "out" / "target.wav").read_bytes() != first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "street.wav"]


def test_a_manifest_with_a_bad_item_ends_with_status_1(door, folder, street, tmp_path, capsys):
    lines = [{"id": "good", "audio": "street.wav"}, {"id": "bad", "audio": "none.wav"}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    said = ["--manifest", str(tmp_path / "items.jsonl"), "--checkpoint", str(folder)]
    assert door([*said, "--out", str(out)]) == 1
    assert "failed: bad: no sound file" in capsys.readouterr().err
    assert sorted(file.name for file in out.iterdir()) == [
        *("done.jsonl", "failed.jsonl", "good.residual.wav", "good.target.wav"),
        *("lengths.0.jsonl", "settings.json"),
    ]
    assert door([*said, "--out", str(out), "--seed", "9"]) == 2
    assert "other settings (seed: then 0, now 9)" in capsys.readouterr().err
