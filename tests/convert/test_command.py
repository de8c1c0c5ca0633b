"""launch/convert.py: one line and status 2 for what the caller can fix."""

import pytest


@pytest.mark.golden
def test_a_folder_is_converted(command, reference, tmp_path):
    out = tmp_path / "out"
    assert command.main(["--from", str(reference), "--to", str(out), "--dtype", "float16"]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "checkpoint.safetensors", "sam_audio_jax.json", "t5")
    }


@pytest.mark.golden
def test_an_export_without_a_vision_tower_says_so(command, reference, tmp_path, capsys):
    assert command.main(["--from", str(reference), "--to", str(tmp_path / "out"), "--export"]) == 0
    assert "note: no vision tower in it" in capsys.readouterr().err
    assert (tmp_path / "out" / "checkpoint.safetensors").is_file()


@pytest.mark.parametrize(
    "argv",
    [
        ["--from", "./nowhere", "--to", "out"],
        ["--to", "out"],
        ["--from", "a", "--to", "out", "--x"],
    ],
)
def test_bad_calls_end_with_one_line_and_status_2(command, argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
