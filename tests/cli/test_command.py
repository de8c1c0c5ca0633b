"""Numbers with a lower limit: a wrong one is an error of one line before anything is loaded."""

import errno
import io
import sys

import pytest

from sam_audio_jax import config
from sam_audio_jax.cli import (
    convert,
    evaluate,
    export,
    finetune,
    label,
    prepare,
    scaling,
    separate,
    train,
    train_codec,
)
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", "argument --seed: -1 must be 0 or more"),
        ("1.5", "argument --seed: invalid int value: '1.5'"),
    ],
)
def test_a_lower_limit(text, message):
    parser = config.ArgumentParser(None, command="any")
    parser.add_argument("--seed", type=at_least(0))
    assert parser.parse_args(["--seed", "0"]).seed == 0
    with pytest.raises(UserError) as caught:
        parser.parse_args(["--seed", text])
    assert str(caught.value) == message


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_flag_is_named_whatever_the_terminal_encodes(encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(UserError, match=r"^Unrecognized options: --flag"):
        config.from_cli(["tiny", "--flag", "1"])


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (separate.main, ["a.wav", "--seed", "-1"], "--seed: -1 must be 0 or more"),
        (separate.main, ["a.wav", "--steps", "0"], "--steps: 0 must be 1 or more"),
        (separate.main, ["a.wav", "--candidates", "0"], "--candidates: 0 must be 1 or more"),
        (separate.main, ["a.wav", "--process", "-1"], "--process: -1 must be 0 or more"),
        (prepare.main, ["tiny", "--items", "0"], "--items: 0 must be 1 or more"),
        (prepare.main, ["tiny", "--batch", "-8"], "--batch: -8 must be 1 or more"),
    ],
)
def test_wrong_numbers(main, argv, message, capsys, tmp_path):
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: argument {message}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no such thing"), 2, "error: no such thing"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.wav"),
            2,
            "No space left on device: a",
        ),
        (RuntimeError("write: No space left on device"), 2, "error: cannot write: write: No space"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "Permission denied: x"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_of_a_place_and_interrupts_are_one_line(error, status, line, capsys):
    @command
    def main(argv):
        raise error

    assert main([]) == status
    text = capsys.readouterr().err
    assert line in text
    assert text.count("\n") == 1


def test_other_errors_keep_their_traceback():
    @command
    def main(argv):
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        main([])


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (train.main, ["tiny", "--eval-bench", "nowhere"], "bench 'nowhere' has no manifest.jsonl"),
        (train.main, ["tiny", "--checkpoint.best-metric", "no", "--eval-bench", ""], "eval_bench"),
        (
            train.main,
            ["tiny", "--checkpoint.best-metric", "sisdri/wiener/sfx", "--eval-bench", "embedded"],
            "did you mean sisdri/wiener/sfx/text?",
        ),
        (train_codec.main, ["codec_tiny", "--checkpoint.best-metric", "no"], "mel, si_sdr_db, st"),
    ],
)
def test_what_a_run_cannot_evaluate_is_refused_before_it_starts(
    main, argv, message, tmp_path, capsys
):
    assert main([*argv, "--workdir", str(tmp_path / "run")]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert message in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (separate.main, ["a.wav", "--text", "dog", "--out"]),
        (evaluate.main, ["--checkpoint", "tiny", "--out"]),
        (convert.main, ["--from", "tiny", "--to"]),
        (prepare.main, ["tiny", "--out"]),
        (train.main, ["tiny", "--workdir"]),
    ],
)
@pytest.mark.parametrize("place", ["file/x", "/proc/x"])
def test_a_place_is_tried_before_any_work(main, argv, place, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*argv, str(tmp_path / place)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert place in text


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (separate.main, ["a.wav", "--text", "dog", "--out"]),
        (evaluate.main, ["--checkpoint", "tiny", "--out"]),
        (convert.main, ["--from", "tiny", "--to"]),
        (export.main, ["tiny", "--format", "onnx", "--out"]),
        (prepare.main, ["tiny", "--out"]),
        (label.main, ["a.jsonl", "--out"]),
        (train.main, ["tiny", "--workdir"]),
        (finetune.main, ["a.jsonl", "--workdir"]),
        (scaling.main, ["scaling_tiny", "--workdir"]),
    ],
)
@pytest.mark.parametrize(
    ("place", "message"), [("gs://bucket/x", "is an address; mount"), ("", "the name is empty")]
)
def test_an_address_or_no_name_is_no_folder(
    main, argv, place, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*argv, place]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert message in text
    assert not list(tmp_path.iterdir())
