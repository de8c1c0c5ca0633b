"""The command `separate`: a real process, every kind of wrong input, no unfinished results."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.cli import separate as command
from sam_audio_jax.infer import output
from sam_audio_jax.infer.buckets import BucketConfig
from tests.children import ROOT, environment
from tests.video.clips import frames_at, greys
from tests.video.clips import write as write_video


@pytest.fixture
def street(tmp_path, noise_of):
    """A stereo recording of 1.01 s."""
    audio.write_wav(tmp_path / "street.wav", noise_of(2.02, channels=2), 16_000)
    return str(tmp_path / "street.wav")


@pytest.mark.processes
def test_one_recording_in_a_process_of_its_own(folder, street, tmp_path):
    arguments = [street, "--text", "dog", "--span", "+", "0.1", "0.5", "--checkpoint", str(folder)]
    arguments += ["--span", "-", "0.6", "0.9", "--refine", "wiener", "--seed", "3"]
    done = subprocess.run(
        [sys.executable, "launch/separate.py", *arguments, "--out", str(tmp_path / "a")],
        cwd=ROOT,
        env=environment(JAX_DEFAULT_MATMUL_PRECISION="highest"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert command.main([*arguments, "--out", str(tmp_path / "b")]) == 0
    names = ["residual.wav", "spectrogram.png", "target.wav"]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    stems = [audio.load(tmp_path / "a" / f"{name}.wav") for name in ("target", "residual")]
    assert {stem.sample_rate for stem in stems} == {16_000}
    mixture = audio.load(street).samples
    np.testing.assert_array_equal(stems[0].samples + stems[1].samples, mixture)
    assert not list(tmp_path.glob(".*"))  # no temporary folder stays


def test_what_is_unusual_about_a_recording_is_a_note(folder, street, tmp_path, capsys):
    whole = pathlib.Path(street).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    arguments = [str(tmp_path / "cut.wav"), "--text", "dog", "--checkpoint", str(folder)]
    assert command.main([*arguments, "--track", "1", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err
    assert lines.count("note:") == 1
    assert "cut.wav has 0.50 s of sound, its header says 1.01 s" in lines


def wrong_inputs(checkpoint: pathlib.Path, street: str) -> dict[str, tuple[list[str], str]]:
    """Name of each case -> arguments, and a part of the error's text."""
    here = pathlib.Path(street).parent
    (here / "text.wav").write_text("no sound")
    audio.write_wav(here / "empty.wav", np.zeros((1, 0)), 8_000)
    audio.write_wav(here / "silent.wav", np.zeros((1, 800)), 8_000)
    audio.write_wav(here / "nan.wav", np.full((1, 800), np.nan), 8_000)
    np.save(here / "noise.npy", np.zeros((3, 3), np.float32))
    (here / "items.jsonl").write_text('{"id": "a"}\n')
    (here / "good.jsonl").write_text('{"id": "a", "audio": "street.wav"}\n')
    write_video(here / "street.mkv", np.zeros((3, 32, 32, 3), np.uint8))
    (here / "song.mp4").write_bytes((here / "empty.wav").read_bytes())
    np.savez(here / "small.npz", mask=np.ones((3, 8, 8), bool))
    np.savez(here / "short.npz", mask=np.ones((2, 32, 32), bool))
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("x")
    model = ["--checkpoint", str(checkpoint)]
    text = [street, "--text", "dog"]
    video = [street, "--video", str(here / "street.mkv")]
    return {
        "no input": ([], "give either one INPUT or --manifest"),
        "both": ([street, "--manifest", "x"], "give either one INPUT"),
        "missing": ([str(here / "none.wav")], "no sound file at"),
        "undecodable": ([str(here / "text.wav")], "text.wav"),
        "zero length": ([str(here / "empty.wav")], "empty.wav"),
        "silent": ([str(here / "silent.wav")], "is silent"),
        "nan": ([str(here / "nan.wav")], "NaN"),
        "span outside": ([street, "--span", "+", "0.5", "9"], "must have start < end"),
        "span backwards": ([street, "--span", "+", "0.5", "0.2"], "must have start < end"),
        "span token": ([street, "--span", "dog", "0.5", "0.9"], "'+' (sounds)"),
        "span short": ([street, "--span", "+", "0.5"], "expected 3 arguments"),
        "noise": ([*text, "--noise", str(here / "noise.npy"), *model], "shape (3, 3)"),
        "no noise": ([street, "--noise", str(here / "n.npy")], "no noise file"),
        "steps": ([street, "--steps", "0", *model], "--steps: 0 must be 1 or more"),
        "method": ([street, "--method", "rk4"], "invalid choice: 'rk4'"),
        "checkpoint": ([*text, "--checkpoint", "tinny"], "no checkpoint 'tinny'; shipped:"),
        "option": ([street, "--masks", "x"], "--masks"),
        "mask alone": ([street, "--mask", "x"], "--mask needs --video"),
        "mask size": ([*video, *model, "--mask", str(here / "small.npz")], "8 x 8 pixels"),
        "mask length": ([*video, *model, "--mask", str(here / "short.npz")], "has 2 frames"),
        "no video": ([street, "--video", str(here / "none.mp4"), *model], "no video file"),
        "no frames": ([street, "--video", str(here / "song.mp4"), *model], "has no video stream"),
        "mask keeps": ([*video, "--mask-keeps", "sound"], "invalid choice: 'sound'"),
        "no tower": (video, "this model has no vision tower"),
        "no predictor": ([*text, "--predict-spans", *model], "has no span predictor"),
        "no scorer": ([*text, "--candidates", "2", *model], "this model names no text ranker"),
        "negative span": ([street, "--span", "+", "-1", "0.2"], "must have start < end"),
        "manifest": (["--manifest", str(here / "items.jsonl")], "line 1: audio must be"),
        "manifest text": (["--manifest", str(here / "good.jsonl"), "--text", "x"], "--text is"),
        "full folder": ([street, "--out", str(here / "full")], "holds other files (thesis.txt)"),
        "file as folder": ([street, "--out", street], "is a file"),
        "folder in a file": ([street, "--out", f"{street}/out"], "street.wav is a file"),
        "no prompt": ([street], "nothing says what to separate"),
        "empty path": ([*text, "--noise", ""], "--noise is empty"),
        "empty in a manifest": (
            ["--manifest", str(here / "good.jsonl"), "--text", ""],
            "--text is",
        ),
        "rest alone": ([street, "--span", "+", "0.1", "0.2", "--rest"], "--rest needs a --text"),
        "unused predictor": ([*text, "--span-predictor", "x"], "needs --predict-spans"),
        "unused ranker": ([*text, "--ranker", "clap=x"], "--ranker needs --candidates of 2"),
        "ranker twice": (
            [*text, "--ranker", "judge=x", "--ranker", "judge=y", "--candidates", "2"],
            "--ranker judge=... is there twice",
        ),
        "unused side": ([*video, "--mask-keeps", "background"], "background needs --mask"),
        "no words": ([street, "--text", " ?! "], "nothing says what to separate"),
        "no UTF-8": ([street, "--text", "caf\udce9"], "half of a character"),
    }


def test_wrong_inputs_are_errors_of_one_line_and_leave_nothing(
    model, folder, street, tmp_path, capsys, monkeypatch
):
    cases, load = wrong_inputs(folder, street), command.load
    here = str(folder)  # loaded once for all of its cases
    monkeypatch.setattr(command, "load", lambda a: model if a.checkpoint == here else load(a))
    before = sorted(tmp_path.rglob("*"))
    for case, (arguments, message) in cases.items():
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        assert command.main([*arguments, *out]) == 2, case
        *_, error = capsys.readouterr().err.strip().splitlines()
        assert error.startswith("error: "), (case, error)
        assert message in error, (case, error)
        assert sorted(tmp_path.rglob("*")) == before, case


def test_a_video_gets_the_target_as_its_sound(folder, street, tmp_path):
    path = write_video(tmp_path / "street.mp4", greys(11))
    np.savez(tmp_path / "mask.npz", mask=np.ones((11, 24, 32), bool))
    arguments = [street, "--video", str(path), "--mask", str(tmp_path / "mask.npz")]
    arguments += ["--candidates", "2", "--span", "+", "0.1", "0.5", "--checkpoint", str(folder)]
    assert command.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    names = {"residual.wav", "spectrogram.png", "target.mp4", "target.wav"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    target = audio.load(tmp_path / "out" / "target.wav").samples
    sound = audio.load(tmp_path / "out" / "target.mp4")
    assert sound.sample_rate == 8_000
    assert np.corrcoef(sound.samples[0, : target.shape[1]], target[0])[0, 1] > 0.8
    pictures = frames_at(tmp_path / "out" / "target.mp4", np.arange(11) / 10)
    np.testing.assert_array_equal(pictures, frames_at(path, np.arange(11) / 10))
    assert command.main([*arguments, "--out", str(tmp_path / "out"), "--overwrite"]) == 0


def test_an_earlier_result_is_replaced_only_on_demand(folder, street, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [street, "--text", "dog", "--checkpoint", str(folder), "--out", str(out)]
    assert command.main(arguments) == 0
    first = (out / "target.wav").read_bytes()
    assert command.main([*arguments, "--seed", "5"]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert (out / "target.wav").read_bytes() == first
    assert command.main([*arguments, "--seed", "5", "--overwrite"]) == 0
    assert (out / "target.wav").read_bytes() != first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "street.wav"]


def test_unfinished_downloads_in_the_folder_are_not_replaced(street, tmp_path, capsys):
    out = tmp_path / "downloads"
    out.mkdir()
    (out / "film.mp4.part").touch()
    assert command.main([street, "--text", "dog", "--out", str(out)]) == 2
    assert "holds other files (film.mp4.part)" in capsys.readouterr().err


def test_an_input_in_the_folder_that_is_replaced_is_refused(street, tmp_path, capsys):
    out = tmp_path / "out"
    earlier = out / "target.wav"
    out.mkdir()
    earlier.write_bytes(pathlib.Path(street).read_bytes())
    (tmp_path / "link.wav").symlink_to(earlier)
    rest = ["--text", "dog", "--out", str(out), "--overwrite"]
    link = str(tmp_path / "link.wav")
    for arguments in ([str(earlier)], [link], [street, "--like", link]):
        assert command.main([*arguments, *rest]) == 2
        assert "is a file of the earlier result that --out" in capsys.readouterr().err
    assert earlier.read_bytes() == pathlib.Path(street).read_bytes()


def test_files_that_appear_meanwhile_are_not_replaced(model, street, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    def load(args):
        out.mkdir()
        (out / "thesis.txt").write_text("x")
        return model

    monkeypatch.setattr(command, "load", load)
    assert command.main([street, "--text", "dog", "--out", str(out)]) == 2
    assert "holds other files (thesis.txt)" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["thesis.txt"]


def test_a_manifest_with_a_bad_item_ends_with_status_1(folder, street, tmp_path, capsys):
    lines = [{"id": "good", "audio": "street.wav", "text": "dog"}]
    lines += [{"id": "bad", "audio": "none.wav", "text": "dog"}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    arguments = ["--manifest", str(tmp_path / "items.jsonl"), "--checkpoint", str(folder)]
    assert command.main([*arguments, "--out", str(out)]) == 1
    assert "failed: bad: no sound file" in capsys.readouterr().err
    names = {"good.residual.wav", "good.target.wav", "lengths.0.jsonl", "settings.json"}
    assert {file.name for file in out.iterdir()} == names | {"done.jsonl", "failed.jsonl"}
    assert command.main([*arguments, "--out", str(out), "--seed", "9"]) == 2
    assert "other settings (seed: then 0, now 9)" in capsys.readouterr().err


def test_the_last_line_counts_the_items_of_all_processes(
    model, street, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "load", lambda args: model)
    lines = [{"id": name, "audio": "street.wav", "text": "dog"} for name in "abc"]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ["--manifest", str(tmp_path / "items.jsonl"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(model.pipeline, "buckets", BucketConfig(batch=2))
    for index, done in ((0, 2), (1, 3)):
        assert command.main([*arguments, "--process", str(index), "--processes", "2"]) == 0
        assert f"{done} of the 3 of all processes are in" in capsys.readouterr().err


def test_stems_are_kept_when_a_later_file_fails(
    model, folder, street, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "load", lambda args: model)
    monkeypatch.setattr(output, "spectrograms_png", lambda *_, **__: 1 / 0)
    out = tmp_path / "out"
    assert command.main([street, "--text", "dog", "--out", str(out)]) == 0
    assert "warning: no spectrogram.png: ZeroDivisionError" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["residual.wav", "target.wav"]
