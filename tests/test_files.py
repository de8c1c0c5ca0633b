import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from sam_audio_jax import files
from sam_audio_jax.errors import UserError
from tests.children import ROOT, environment


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(ZeroDivisionError), files.whole_file(path) as part:
        part.write_text(str(1 / 0))
    assert files.read_json(path) == {"x": 1}
    assert os.listdir(path.parent) == ["a.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def test_a_folder_is_replaced_only_when_asked_and_only_when_full(tmp_path):
    path = tmp_path / "out"
    with files.whole_folder(path) as part:
        (part / "a").write_text("1")
    with pytest.raises(UserError, match="exists already"), files.whole_folder(path):
        pass
    with pytest.raises(ZeroDivisionError), files.whole_folder(path, overwrite=True) as part:
        (part / "b").write_text(str(1 / 0))
    assert (path / "a").read_text() == "1"
    with files.whole_folder(path, overwrite=True) as part:
        (part / "b").write_text("2")
    assert os.listdir(path) == ["b"]
    assert os.listdir(tmp_path) == ["out"]


def test_files_of_others_that_are_called_parts_are_no_leftovers(tmp_path):
    for name in ("film.mp4.part", "archive.part1.rar"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).touch()
        with pytest.raises(UserError, match="exists already"):
            files.check_new_folder(folder, "--out")
    (tmp_path / "killed").mkdir()
    with files.whole_file(tmp_path / "killed" / "a") as part:
        assert files.is_part(part.name)
        part.touch()
        files.check_new_folder(tmp_path / "killed")


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(OSError, match="not empty"), files.whole_folder(path):
        files.write_json(path / "theirs", 1)
    assert os.listdir(path) == ["theirs"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = tmp_path / "out"
    (path / "kept").mkdir(parents=True)
    rename = pathlib.Path.rename

    def fail_once(self, target):
        if self != path and target == path and (self / "new").exists():
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail_once)
    with pytest.raises(OSError, match="gone"), files.whole_folder(path, overwrite=True) as part:
        (part / "new").touch()
    assert os.listdir(path) == ["kept"]
    assert os.listdir(tmp_path) == ["out"]


def test_lines_that_a_kill_cut_short_are_skipped_only_on_request(tmp_path):
    path = tmp_path / "log.jsonl"
    assert files.read_jsonl(path) == []
    path.write_text('{"n": 1}\n{"n": 2, "te{"n": 3}\n{"n": 4}\n{"n"')
    assert files.read_jsonl(path, skip_torn=True) == [{"n": 1}, {"n": 4}]
    with pytest.raises(UserError, match="line 2 is not JSON"):
        files.read_jsonl(path)


def test_lines_are_split_at_newlines_alone(tmp_path):
    path = tmp_path / "lines.jsonl"
    values = [{"text": "a\u2028b\x85c"}, {"text": "ö"}]
    assert files.write_jsonl(path, values) == 2
    assert files.read_jsonl(path) == values
    assert json.loads(path.read_text(encoding="utf-8").split("\n")[1]) == values[1]


def test_a_line_after_one_that_a_kill_cut_short_is_not_lost(tmp_path):
    path = tmp_path / "log.jsonl"
    files.append_jsonl(path, [{"n": 1}])
    with path.open("a") as file:
        file.write('{"n": 2, "te')
    assert files.read_jsonl_from(path, 0) == ([{"n": 1}], 9)
    files.append_jsonl(path, [{"n": 3}, {"n": 4}])
    assert files.read_jsonl(path, skip_torn=True) == [{"n": 1}, {"n": 3}, {"n": 4}]
    assert files.read_jsonl_from(path, 9) == ([{"n": 3}, {"n": 4}], path.stat().st_size)


def test_names_that_are_no_utf8_can_be_written(tmp_path):
    path = tmp_path / "lines.jsonl"
    files.write_jsonl(path, [{"audio": "caf\udce9.wav"}])
    assert files.read_jsonl(path) == [{"audio": "caf\udce9.wav"}]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / "kept.wav").touch()
    (tmp_path / ".a.12345678.part.wav").touch()
    files.remove_parts(tmp_path, older_than_s=60.0)
    assert len(os.listdir(tmp_path)) == 2
    files.remove_parts(tmp_path)
    assert os.listdir(tmp_path) == ["kept.wav"]


def test_a_folder_that_was_never_finished_goes_when_it_is_written_again(tmp_path):
    left, written = tmp_path / ".model.12345678.part", tmp_path / ".model.87654321.part"
    for part in (left, written):
        (part / "t5").mkdir(parents=True)
        (part / "t5" / "weights").touch()
        for path in (part / "t5", part):
            os.utime(path, (0, 0))
    os.utime(left / "t5" / "weights", (0, 0))
    with files.whole_folder(tmp_path / "model"):
        pass
    assert sorted(os.listdir(tmp_path)) == [written.name, "model"]


def test_leftovers_of_a_folder_are_known_from_those_of_folders_of_like_names(tmp_path):
    others = {".lr0.12345678.part", ".lr0.12345678.part.002", ".lr0.001.12345678.part.b"}
    for name in (*others, ".lr0.12345678.part.001", ".lr0.87654321.part-3-.001"):
        (tmp_path / name).mkdir()
    files.remove_parts_of(tmp_path / "lr0.001")
    assert set(os.listdir(tmp_path)) == others
    with files.whole_folder(tmp_path / "whole") as part:
        files.remove_parts_of(tmp_path / "whole")
        assert not part.exists()
        part.mkdir()


def test_the_lock_of_a_folder_removes_what_nobody_writes_to(tmp_path):
    own, other = tmp_path / ".a.12345678.part-1-.wav", tmp_path / ".a.12345678.part-0-.wav"
    own.touch()
    other.touch()
    with files.writing_to(tmp_path, writer=1, writers=2):
        assert os.listdir(tmp_path) == [other.name]
    with files.writing_to(tmp_path, writer=0, writers=1):
        assert os.listdir(tmp_path) == []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_lock_of_a_folder_ends_with_its_process(tmp_path):
    hold = """
import pathlib, sys
from sam_audio_jax.files import writing_to
with writing_to(pathlib.Path(sys.argv[1]), writer=0, writers=1):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        refused = pytest.raises(UserError, match="another process is writing to")
        with refused, files.writing_to(tmp_path, writer=0, writers=2):
            pass
        process.kill()
        process.wait()
        with files.writing_to(tmp_path, writer=0, writers=1):
            pass


@pytest.mark.parametrize("kind", ["link", "working", "mounted"])
def test_a_folder_that_cannot_be_renamed_is_filled(kind, tmp_path, monkeypatch):
    out = real = tmp_path / "real"
    real.mkdir()
    before = real.stat().st_ino
    if kind == "link":
        out = tmp_path / "link"
        out.symlink_to("real")
    elif kind == "working":
        monkeypatch.chdir(real)
        out = pathlib.Path()
    else:
        monkeypatch.setattr(os.path, "ismount", lambda path: pathlib.Path(path) == real)
    with files.whole_folder(out) as part:
        (part / "folder").mkdir()
        (part / "a").write_text("1")
    with files.whole_folder(out, overwrite=True) as part:
        (part / "b").write_text("2")
    assert os.listdir(real) == ["b"]
    assert real.stat().st_ino == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", "is a file"),
        ("file/x", "file is a file"),
        ("dangling", "is a link to nowhere"),
        ("new/" + "n" * 256, "File name too long"),
        ("zero\0", "null byte"),
        ("/proc/x/y", "cannot write to --out /proc/x"),
        ("", "--out is empty"),
    ],
)
def test_places_that_take_no_files(place, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(UserError, match=message):
        files.check_writable(tmp_path / place if place else "", "--out")
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


def test_a_place_that_takes_files_is_left_as_it_was(tmp_path):
    files.check_writable(tmp_path / "new" / ("n" * 80))
    files.check_writable(tmp_path)
    assert not os.listdir(tmp_path)
    long = tmp_path / ("ü" * 127)  # 254 bytes, so that its hidden name has to be cut
    with files.whole_folder(long) as part:
        (part / "a").touch()
    assert os.listdir(long) == ["a"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_lines_of_users_are_read_in_any_unicode(encoding, tmp_path):
    path, values = tmp_path / "lines.jsonl", [{"text": "ä\u2028b\x85\x0b\x0c"}, {"text": "🐕"}]
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    path.write_bytes("\r\n".join([lines[0], "", lines[1], ""]).encode(encoding))
    assert files.read_lines(path) == [(1, values[0]), (3, values[1])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": "\xe4"}', r"line 2 is not UTF-8 \(byte 0xe4 at 8\)"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "Infinity is no number"),
        (b'{"a": 1, "a": 2}', "key 'a' is there twice"),
        (b"[" * 100_000, "nested too deep"),
        (b"1" * 5_000, "line 2 is not JSON"),
        (b'{"a": 1} {"b": 2}', "Extra data"),
    ],
)
def test_a_bad_line_is_the_error_of_that_line_alone(line, message, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    (_, first), (_, error), (_, last) = files.iter_lines(path)
    assert (first, last) == ({"n": 1}, {"n": 3})
    assert isinstance(error, UserError)
    with pytest.raises(UserError, match=message):
        files.read_lines(path)


def test_files_that_hold_no_lines(tmp_path):
    (tmp_path / "odd").write_bytes('{"n": 1}\n'.encode("utf-16") + b"\0")
    with pytest.raises(UserError, match="is no utf-16"):
        files.read_lines(tmp_path / "odd")
    with pytest.raises(UserError, match="is a folder"):
        files.read_lines(tmp_path)
