import json
import pathlib

import numpy as np
import pytest
import soundfile

from sam_audio_jax.data import pipeline
from sam_audio_jax.data import waves as waves_module
from sam_audio_jax.data.config import DataConfig, SourceConfig
from sam_audio_jax.data.library import open_library
from sam_audio_jax.data.recording import CATEGORIES
from sam_audio_jax.data.source import (
    embedded,
    load_manifest,
    load_manifests,
    load_songs,
    read_source,
)
from sam_audio_jax.data.waves import open_waves
from sam_audio_jax.errors import UnusableError, UserError
from sam_audio_jax.files import write_jsonl

GOOD = {
    "id": "a",
    "path": "a.wav",
    "caption": "dog barking",
    "category": "sfx",
    "source_id": "dog",
    "duration": 1.0,
    "license": "CC0-1.0",
}


def manifest(folder: pathlib.Path, *lines: dict | str) -> pathlib.Path:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


@pytest.fixture
def folder(tmp_path):
    wave = 0.1 * np.random.default_rng(0).normal(size=8000)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    return tmp_path


def test_a_line_becomes_a_recording_and_both_spellings_of_license_are_read(folder):
    british = {key: value for key, value in GOOD.items() if key != "license"}
    lines = (GOOD, british | {"id": "b", "licence": "MIT", "spans": [[0, 0.5]], "rms_db": -3})
    first, second = load_manifest(manifest(folder, *lines))
    assert (first.license, second.license) == ("CC0-1.0", "MIT")
    assert first.path == str(folder / "a.wav")
    assert second.spans == ((0.0, 0.5),)
    assert first.split == "train"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ('["a list"]', "line 2 must be an object"),
        (GOOD | {"id": "b", "caption": None}, "line 2: field 'caption' is missing"),
        (GOOD | {"id": "b", "caption": 5}, "line 2: field 'caption' must be a str, not 5"),
        (GOOD | {"id": "b", "category": "noise"}, "category 'noise' must be one of speech"),
        (GOOD | {"id": "b", "duration": "long"}, "field 'duration' must be a number"),
        (GOOD | {"id": "b", "duration": 0}, "must be above 0 s"),
        (GOOD | {"id": "b", "path": "gone.wav"}, "line 2: no sound file at"),
        (GOOD | {"id": "b", "spans": [[1]]}, "spans must be"),
        (GOOD | {"id": "b", "alt_captions": [1]}, "alt_captions must be strings"),
        (GOOD, "line 2: id 'a' is also in line 1"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(folder, line, message):
    path = manifest(folder, GOOD, line)
    with pytest.raises(UserError) as error:
        load_manifest(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sound_of_two_sources_is_warned_of_but_not_channels_of_a_file(folder, caplog):
    other = {"id": "b", "caption": "rain", "source_id": "cat"}
    path = manifest(folder, GOOD, GOOD | other, GOOD | other | {"id": "c", "channel": 1})
    recordings, _, refused = read_source(SourceConfig(manifests=(str(path),)))
    assert [one.source_id for one in recordings] == ["dog", "cat", "cat"]
    assert not len(refused)
    (warning,) = caplog.messages
    assert warning.startswith("1 recordings have the sound of another one")
    assert warning.endswith("b has 'cat', a has 'dog'")


def test_no_manifest_an_empty_one_and_an_absent_split(folder):
    with pytest.raises(UserError, match="no manifest"):
        load_manifest(folder / "gone.jsonl")
    with pytest.raises(UserError, match="has no lines"):
        load_manifest(manifest(folder, ""))
    with pytest.raises(UserError, match="the manifests have train"):
        load_manifests((str(manifest(folder, GOOD)),), "test")


def test_waves_are_decoded_once_and_read_in_parts(world):
    recordings = load_manifest(world)
    waves = open_waves(recordings, 8000)
    stored, _ = soundfile.read(recordings[3].path, dtype="float32")
    np.testing.assert_allclose(waves.read(3), stored, atol=2e-5)
    np.testing.assert_array_equal(waves.read(3, 100, 50), waves.read(3)[100:150])
    assert len(waves.read(3, len(stored) - 5, 50)) == 5
    assert open_waves(recordings, 8000).folder == waves.folder
    assert open_waves(recordings, 4000).length(3) == len(stored) // 2


def test_processes_that_decode_at_the_same_time_share_one_folder(world, monkeypatch):
    recordings = load_manifest(world)[:3]
    monkeypatch.setattr(waves_module, "DECODE_VERSION", -1)  # not decoded yet
    decode_all = waves_module._decode_all

    def late(*arguments):
        decode_all(*arguments)  # another process was faster
        decode_all(*arguments)

    monkeypatch.setattr(waves_module, "_decode_all", late)
    waves = open_waves(recordings, 8000)
    assert waves.length(0) == 5600
    assert not list(pathlib.Path(waves.folder).parent.glob(".*.part*"))


def bad_files(folder: pathlib.Path, good: int) -> list[dict]:
    soundfile.write(folder / "silent.wav", np.zeros(8000), 8000)
    return [
        *(GOOD | {"id": str(number)} for number in range(good)),
        GOOD | {"id": "silent", "path": "silent.wav"},
        GOOD | {"id": "short", "duration": 5.0},
    ]


def test_bad_files_are_named_and_left_out(folder, caplog):
    (folder / "junk.wav").write_bytes(b"junk")
    lines = [*bad_files(folder, 2), GOOD | {"id": "junk", "path": "junk.wav"}]
    waves = open_waves(load_manifest(manifest(folder, *lines)), 8000)
    assert [waves.length(number) for number in (1, 2, 3, 4)] == [8000, 0, 0, 0]
    assert "silent.wav: silent" in caplog.text
    assert "truncated: 1.00 s of 5.00 s" in caplog.text
    assert "junk.wav: " in caplog.text


@pytest.mark.parametrize("streamed", [False, True])
def test_recordings_too_quiet_for_a_mixture_are_counted(folder, caplog, streamed):
    """Their peaks are above -60 dBFS, but their level is not: no part of them can be brought up."""
    quiet = 10 ** (-63 / 20) * np.random.default_rng(0).normal(size=8000)
    soundfile.write(folder / "quiet.wav", quiet, 8000, subtype="FLOAT")
    lines = [GOOD, GOOD | {"id": "b"}, GOOD | {"id": "quiet", "path": "quiet.wav"}]
    path = manifest(folder, *lines)
    library = open_library(SourceConfig(manifests=(str(path),), streamed=streamed), 8000)
    if streamed:
        with pytest.raises(UnusableError, match="too quiet: nowhere -60 dBFS or more"):
            library.waves.read(2)
        assert library.waves.refusals.counts == {"too quiet": 1}
    else:
        assert [library.waves.length(number) for number in range(3)] == [8000, 8000, 0]
        assert "1 of 3 recordings are left out: 1 too quiet" in caplog.text


def lists_of_songs(folder: pathlib.Path, songs: list[list[str]], streamed: bool, **files) -> list:
    """The ids of the stems of each song that a source finds; `files` are manifests and their ids.

    The captions are those ids with the name of their manifest.
    """
    for name, ids in files.items():
        lines = [GOOD | {"id": i, "caption": f"{i} {name}", "song": "s", "stem": i} for i in ids]
        write_jsonl(folder / f"{name}.jsonl", lines)
    rows = [{"song": "s", "stems": [{"id": i} for i in ids]} for ids in songs]
    write_jsonl(folder / "songs.jsonl", rows)
    manifests = tuple(str(folder / f"{name}.jsonl") for name in files)
    table = open_library(SourceConfig(manifests=manifests, streamed=streamed), 8000).table
    return [[table.recordings[int(n)].caption for n in one] for one in table.lists("songs")]


@pytest.mark.parametrize("streamed", [False, True])
def test_stems_of_a_song_may_be_in_several_manifests_of_a_folder(folder, streamed):
    songs = [["d", "e", "f"], ["g", "h"]]
    found = lists_of_songs(folder, songs, streamed, none=["x"], one=["d", "g", "h"], two=["e", "f"])
    assert found == [["d one", "e two", "f two"], ["g one", "h one"]]


def test_manifests_of_a_folder_with_the_same_ids_have_songs_of_their_own(folder):
    found = lists_of_songs(folder, [["d", "e"]], False, one=["d", "e"], two=["e", "d"])
    assert found == [["d one", "e one"], ["d two", "e two"]]
    with pytest.raises(UserError, match="song 's' has the stem 'd' in several manifests of its"):
        lists_of_songs(folder, [["d", "e"]], False, one=["d", "e"], two=["d"], three=["e"])


def test_a_kind_without_recordings_is_named(folder, caplog):
    path = manifest(folder, GOOD, GOOD | {"id": "b"})
    pipeline.mixer(DataConfig(source=SourceConfig(manifests=(str(path),))), 8000, 320)
    named = caplog.text.partition("there are no recordings for ")[2].strip().split(", ")
    assert "stem/rest" in named
    assert "sfx/sfx" not in named


def test_more_bad_files_than_the_config_allows_are_an_error(folder):
    recordings = load_manifest(manifest(folder, *bad_files(folder, 20)))
    assert len(open_waves(recordings, 8000, most_bad=0.1).refused) == 2
    with pytest.raises(UserError, match=r"2 of 22 recordings are unusable \(1 silent, 1 truncated"):
        open_waves(recordings, 8000, most_bad=0.01)
    with pytest.raises(UserError, match="no recording of 1 can be used"):
        open_waves(recordings[-1:], 8000)


def test_the_embedded_sound_is_small_free_and_split_by_source():
    every = load_manifest(embedded())
    folder = pathlib.Path(embedded()).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    assert not [r.license for r in every if "GPL" in r.license]
    sources = {s: {r.source_id for r in every if r.split == s} for s in ("train", "valid")}
    assert sources["train"].isdisjoint(sources["valid"])
    for split in sources:
        assert {r.category for r in every if r.split == split} == set(CATEGORIES)
        ids = {r.id for r in every if r.split == split}
        assert all(ids.issuperset(song.stems) for song in load_songs((), split))
    credited = (folder / "LICENSES.md").read_text()
    assert all(str(pathlib.Path(r.path).relative_to(folder)) in credited for r in every)


def test_a_corrected_duration_counts(folder):
    wrong = load_manifest(manifest(folder, GOOD | {"duration": 5.0}, GOOD | {"id": "right"}))
    assert open_waves(wrong, 8000).length(0) == 0
    mended = load_manifest(manifest(folder, GOOD, GOOD | {"id": "right"}))
    assert open_waves(mended, 8000).length(0) == 8000
