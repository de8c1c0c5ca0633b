"""Whatever the lines of a manifest hold, each of them ends in done.jsonl or in failed.jsonl."""

import json
import random

import pytest

from sam_audio_jax.cli import separate as command
from tests.infer.batch.conftest import write_recording

LINE = {"id": "item", "audio": "a.wav", "text": "dog \u2028barking", "spans": [["+", 0.1, 0.5]]}
PIECES = (
    *(b'"', b"\\", b"{", b"]", b",", b":", b"\n", b"\r", b"\0", b"\xff", b"\xe2\x80\xa8"),
    *(b"\\ud83d", b"\\u0000", b"../", b"9" * 400, b"1e999", b"NaN", b"[" * 3_000, b"x" * 300),
    *(b'"mask": "a.wav", ', b'"id": "item", ', b'"video": "a.wav", ', b"-", b"null", b"$$"),
)


def mutated(rng: random.Random, number: int) -> bytes:
    """One line with up to three faults, none of which need be one."""
    line = json.dumps(LINE | {"id": f"item{number}"}, ensure_ascii=False).encode()
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(line) + 1)
        match rng.randrange(3):
            case 0:
                line = line[:at] + rng.choice(PIECES) + line[at:]
            case 1:
                line = line[:at] + line[at + rng.randrange(12) :]
            case 2:
                line = line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
    return line


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.long)])
def test_every_line_is_accounted_for(count, model, folder, tmp_path, monkeypatch, capsys):
    rng = random.Random(count)
    write_recording(tmp_path / "a.wav", 0.6, 0)
    lines = [json.dumps(LINE | {"id": "good"}).encode()]
    lines += [mutated(rng, number) for number in range(count)]
    (tmp_path / "items.jsonl").write_bytes(b"\n".join(lines))
    monkeypatch.setattr(command, "load", lambda args: model)
    out = tmp_path / "out"
    arguments = ["--manifest", str(tmp_path / "items.jsonl"), "--checkpoint", str(folder)]
    assert command.main([*arguments, "--out", str(out)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    done = [json.loads(line)["id"] for line in (out / "done.jsonl").read_bytes().splitlines()]
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_bytes().splitlines()]
    assert all("\n" not in one["reason"] and one["reason"] for one in failed)
    physical = b"\n".join(lines).split(b"\n")
    assert len(done) + len(failed) == sum(bool(line.strip(b" \t\r")) for line in physical)
    assert "good" in done
    assert len(set(done)) == len(done) > count // 5
    wanted = {f"{name}.{stem}.wav" for name in done for stem in ("target", "residual")}
    assert {path.name for path in out.glob("*.wav")} == wanted
