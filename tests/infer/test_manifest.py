"""A manifest is refused as a whole, with the line that is wrong."""

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.manifest import read_manifest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 must be an object"),
        ('{"id": "b"}', "line 2: audio must be a string, got None"),
        ('{"id": 7, "audio": "b.wav"}', "line 2: id must be a string, got 7"),
        ('{"id": "a", "audio": "b.wav"}', "line 2: id 'a' is that of line 1"),
        ('{"id": "../b", "audio": "b.wav"}', "line 2: id '../b' must serve as a file name"),
        ('{"id": "' + 101 * "é" + '", "audio": "b.wav"}', "must serve as a file name"),
        ('{"id": "b", "audio": "b.wav", "txt": "x"}', "unknown key 'txt'; allowed: id, audio"),
        ('{"id": "b", "audio": "b.wav", "text": 3}', "text of .*line 2 must be a string"),
        ('{"id": "b", "audio": "b.wav", "spans": [["?", 0, 1]]}', "'[?]' of .*line 2 is unknown"),
        ('{"id": "b", "audio": "b.wav", "spans": 4}', "spans of .*line 2 must be a list"),
        ('{"id": "b", "audio": "b.wav", "video": 4}', "line 2: video must be a string, got 4"),
        ('{"id": "b", "audio": "b.wav", "mask": "m"}', "line 2 has a mask but no video"),
    ],
)
def test_malformed_lines_are_named(tmp_path, line, message):
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "a", "audio": "a.wav"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        read_manifest(path)


def test_lines_are_counted_with_the_empty_ones(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "a", "audio": "a.wav", "text": "\u2028"}\n\n{"id": "a"}\n')
    with pytest.raises(UserError, match="line 3: audio must be a string"):
        read_manifest(path)


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(UserError, match="no manifest at"):
        read_manifest(tmp_path / "items.jsonl")
    (tmp_path / "items.jsonl").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_manifest(tmp_path / "items.jsonl")
