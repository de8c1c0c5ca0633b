"""What is done to an upload before it is decoded: its name, its length, what it may refer to."""

import dataclasses

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.demo import uploads
from sam_audio_jax.demo.store import BusyError, Store
from sam_audio_jax.errors import UserError
from tests.demo.conftest import LIMITS


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("street.wav", "street.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\music\\a b.mp3", "a b.mp3"),
        ("..", "recording"),
        (".hidden", "hidden"),
        ("a\x00b\nc\u202e.wav", "a b c .wav"),
        ("", "recording"),
        (None, "recording"),
        ("é" * 200 + ".flac", "é" * 74 + "….flac"),
    ],
)
def test_names_are_shown_without_folders_in_one_line(name, shown):
    assert uploads.shown_name(name) == shown


def test_a_playlist_reads_no_file_beside_it(tmp_path):
    audio.write_wav(tmp_path / "secret.wav", np.full((1, 8_000), 0.1), 8_000)
    for name, text in {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "a.txt": "ffconcat version 1.0\nfile secret.wav\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} cannot be decoded as sound"):
            uploads.load(tmp_path / name, name, LIMITS)


def test_notes_and_errors_have_the_senders_name_alone(tmp_path):
    path = tmp_path / "source"
    audio.write_wav(path, np.full((1, 8_000), 0.1), 8_000)
    path.write_bytes(path.read_bytes()[:20_000])
    (note,) = uploads.load(path, "street.wav", LIMITS).notes
    assert note.startswith("street.wav has ")
    assert str(tmp_path) not in note


def test_a_high_rate_counts_like_a_long_recording(tmp_path):
    audio.write_wav(tmp_path / "a.wav", np.full((2, 1_000_000), 0.1, "f4"), 1_000_000)
    limits = dataclasses.replace(LIMITS, max_minutes=1 / 12)
    with pytest.raises(UserError, match=r"a\.wav has too many channels or too high a sample rate"):
        uploads.load(tmp_path / "a.wav", "a.wav", limits)


def test_the_longest_unused_recording_is_dropped_but_none_that_a_job_needs(tmp_path):
    store = Store(tmp_path, dataclasses.replace(LIMITS, kept=2))
    first, second, third = (store.new(name) for name in "abc")
    first.pins = 1
    for upload in (first, second, third):
        store.add(upload)
    assert [store.find(one.id) for one in (first, second, third)] == [first, None, third]
    assert not second.folder.exists()
    third.used -= LIMITS.kept_s + 1
    first.used -= LIMITS.kept_s + 1
    store.sweep()
    assert [path.name for path in tmp_path.iterdir()] == [first.id]


def test_a_recording_is_taken_only_where_it_can_stay(tmp_path):
    """It is dropped neither because jobs need all others nor because its upload took long."""
    store = Store(tmp_path, dataclasses.replace(LIMITS, kept=2))
    wanted, idle = store.new("wanted"), store.new("idle")
    slow = store.new("slow")
    for one in (wanted, idle):
        store.add(one)
        assert store.find(one.id) is one
    wanted.pins = 1
    store.add(slow)
    assert store.find(slow.id) is slow
    assert store.find(idle.id) is None
    slow.pins = 1
    late = store.new("late")
    with pytest.raises(BusyError, match="2 recordings wait to be separated already"):
        store.add(late)
    assert not late.folder.exists()
