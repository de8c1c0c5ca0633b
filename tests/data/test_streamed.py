"""Sources that are decoded where they are read: the same sound, from every kind of source."""

import dataclasses
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import soundfile

from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.containers import RecordingShards, write_recordings
from sam_audio_jax.data.library import open_library
from sam_audio_jax.data.likeness import Present
from sam_audio_jax.data.source import load_manifest, load_songs, read_source
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_lines, write_jsonl
from tests.data import toy
from tests.data.conftest import make_sound

RATE, HOP = toy.RATE, toy.HOP


def streamed(source: SourceConfig) -> SourceConfig:
    return dataclasses.replace(source, streamed=True)


def assert_close(ours: list[dict], theirs: list[dict]) -> None:
    """Prompts are equal, and waves up to the 16 bits in which whole files are kept."""
    for one, other in zip(ours, theirs, strict=True):
        for name, rows in one.items():
            if name in ("mixture", "target", "residual"):
                np.testing.assert_allclose(rows, other[name], atol=2e-4)
            else:
                np.testing.assert_array_equal(rows, other[name])


def test_a_streamed_source_gives_the_examples_of_one_that_was_decoded_before(world):
    cfg = toy.config(world, near_share=0.3, caption_power=0.5, absent_share=0.2)
    whole = toy.take(toy.separation(cfg, 6), 3)
    one = dataclasses.replace(cfg, source=streamed(cfg.source))
    stream = toy.take(toy.separation(one, 6), 3)
    assert_close(stream, whole)
    resumed = toy.separation(one, 6)
    resumed.set_state({"batches": 1})
    toy.assert_equal(toy.take(resumed, 2), stream[1:])
    hosts = [
        toy.take(toy.separation(one, 6, process_index=index, process_count=2), 3)
        for index in range(2)
    ]
    for batches in zip(stream, *hosts, strict=True):
        for name, rows in batches[0].items():
            np.testing.assert_array_equal(rows, np.concatenate([b[name] for b in batches[1:]]))


def test_shards_give_the_examples_of_the_files_that_they_hold(world, tmp_path):
    source = toy.config(world).source
    recordings, songs, _ = read_source(source)
    assert write_recordings(tmp_path / "shards", recordings, 10, songs) == 24
    assert len(list((tmp_path / "shards").glob("*.arrayrecord"))) == 3
    assert len(load_songs([str(tmp_path / "shards" / "manifest.jsonl")], "train")) == 2
    sharded = dataclasses.replace(source, manifests=(str(tmp_path / "shards" / "manifest.jsonl"),))
    batches = [
        toy.take(toy.separation(dataclasses.replace(toy.config(world), source=one), 4), 2)
        for one in (streamed(source), streamed(sharded))
    ]
    toy.assert_equal(*batches)
    with pytest.raises(UserError, match=r"data\.source\.streamed"):
        open_library(sharded, RATE)


def test_shards_are_made_of_shards_with_all_songs_and_each_id_once(world, tmp_path):
    recordings, songs, _ = read_source(toy.config(world).source)
    with pytest.raises(UserError, match="'clip-18' is a stem of the song 'one', which is not amo"):
        write_recordings(tmp_path / "shards", recordings)
    with pytest.raises(UserError, match="two recordings have the id 'clip-0'"):
        write_recordings(tmp_path / "shards", recordings[:1] * 2)
    assert not (tmp_path / "shards").exists()
    write_recordings(tmp_path / "shards", recordings, 10, songs)
    manifest = str(tmp_path / "shards" / "manifest.jsonl")
    again = load_manifest(manifest)
    write_recordings(tmp_path / "again", again, 7, load_songs([manifest], "train"))
    shards = [RecordingShards(str(tmp_path / name)) for name in ("shards", "again")]
    assert shards[0].sound(9).data == shards[1].sound(9).data


@pytest.mark.parametrize("is_streamed", [False, True])
def test_stems_of_a_song_that_is_not_listed_are_named(world, tmp_path, caplog, is_streamed):
    lines = [line for _, line in read_lines(world)]
    for line in lines:
        line["path"] = str(pathlib.Path(world).parent / line["path"])
    write_jsonl(tmp_path / "manifest.jsonl", lines)
    source = SourceConfig(manifests=(str(tmp_path / "manifest.jsonl"),), streamed=is_streamed)
    assert len(open_library(source, RATE).table.lists("songs")) == 0
    assert "6 recordings are stems of no song with two usable stems" in caplog.text
    assert "the first 'clip-18' of song 'one'" in caplog.text


def test_a_table_is_opened_again_by_its_folder_and_keeps_nothing_in_memory(world):
    library = open_library(streamed(toy.config(world).source), RATE)
    again = pickle.loads(pickle.dumps(library))
    assert len(pickle.dumps(library)) < 1_500
    recordings, _, _ = read_source(toy.config(world).source)
    assert list(again.table.recordings[:]) == recordings
    assert isinstance(again.table.numbers("sfx"), np.memmap)
    np.testing.assert_array_equal(again.waves.read(3, 100, 50), library.waves.read(3, 100, 50))


def test_a_recording_that_cannot_be_read_is_drawn_again_and_counted_once(world, tmp_path):
    lines = [line for _, line in read_lines(world) if line["category"] == "sfx"]
    for line in lines:
        line["path"] = str(pathlib.Path(world).parent / line["path"])
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "short.flac", make_sound(np.random.default_rng(0), 0.3), RATE)
    for name in ("text.wav", "short.flac"):
        bad = {"id": name, "path": name, "source_id": name, "caption": f"{name} humming"}
        lines.append(lines[0] | bad)
    write_jsonl(tmp_path / "manifest.jsonl", lines)
    cfg = toy.config(str(tmp_path / "manifest.jsonl"), recipes=(("sfx", "sfx", 1.0),))
    cfg = dataclasses.replace(cfg, source=streamed(cfg.source))
    mixer = pipeline.mixer(cfg, RATE, HOP)
    mixtures = [mixer.draw(np.random.default_rng(number)) for number in range(30)]
    assert not any("text.wav" in "".join(one.target_texts) for one in mixtures)
    waves = mixer.arranger.waves
    assert waves.refusals.counts == {"cannot be decoded": 1, "truncated": 1}
    assert {line["reason"] for line in waves.found_before()} == set(waves.refusals.counts)
    strict = dataclasses.replace(cfg.source, most_bad=0.1)
    mixer = pipeline.mixer(dataclasses.replace(cfg, source=strict, seed=5), RATE, HOP)
    mixer.arranger.waves._refused.clear()
    with pytest.raises(UserError, match=r"data\.source\.most_bad=0\.1"):
        list(map(mixer.draw, map(np.random.default_rng, range(30))))


def test_every_instrument_of_a_piece_is_a_target_in_turn(tmp_path):
    rng = np.random.default_rng(0)
    for piece in ("one", "two"):
        folder = tmp_path / "train" / piece
        folder.mkdir(parents=True)
        for name in ("mixture", "drums", "bass", "other", "vocals"):
            soundfile.write(folder / f"{name}.wav", make_sound(rng, 4.0), RATE)
    (tmp_path / "train" / "two" / "bass.wav").write_text("damaged")
    recipes = (("stem", "rest", 1.0),)
    source = SourceConfig(multitracks=(str(tmp_path),))
    for one in (source, streamed(source)):
        cfg = toy.replaced(toy.config("", recipes=recipes), source=one)
        mixer = pipeline.mixer(cfg, RATE, HOP)
        drawn = [mixer.draw(np.random.default_rng(number)) for number in range(30)]
        targets = {mixture.target_texts[0] for mixture in drawn}
        assert targets == {"drums playing", "bass guitar playing", "singing"}
        assert len(mixer.catalogue.table.lists("songs")) == 2
    with pytest.raises(UserError, match="no multitrack pieces in"):
        read_source(dataclasses.replace(source, split="test"))


def write_pieces(folder: pathlib.Path, *files: str) -> SourceConfig:
    """Files of tones under `folder`/train, as a source whose only recipe is stem and rest."""
    rng = np.random.default_rng(0)
    for name in files:
        path = folder / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_sound(rng, 4.0), RATE)
    return SourceConfig(multitracks=(str(folder),))


def test_a_song_of_two_stems_is_not_prompted_for_what_has_no_name(tmp_path):
    source = write_pieces(tmp_path, "one/vocals.wav", "one/other.wav", "two/drums.wav", "two/a.wav")
    cfg = toy.replaced(toy.config("", recipes=(("stem", "rest", 1.0),)), source=source)
    mixer = pipeline.mixer(cfg, RATE, HOP)
    drawn = [mixer.draw(np.random.default_rng(number)) for number in range(30)]
    of_one = [one for one in drawn if "singing" in one.target_texts]
    assert of_one
    assert not any(one.residual_texts for one in of_one)
    assert any(one.residual_texts for one in drawn)
    present = Present({"dog barking"})
    absent = {mixer.catalogue.absent(present, np.random.default_rng(n)) for n in range(30)}
    assert absent
    assert not any("other" in texts for texts in absent)


def test_what_is_no_stem_of_a_piece_is_refused(tmp_path):
    files = ("drums.wav", "drums.flac", "Vocals.wav", "mix.wav", "MIXTURE.wav", "bass.wav")
    source = write_pieces(tmp_path, *(f"one/{name}" for name in files), "artist/two/drums.wav")
    (tmp_path / "train" / "one.stem.mp4").touch()
    recordings, songs, refusals = read_source(source)
    assert sorted(one.stem for one in recordings) == ["bass", "drums", "vocals"]
    assert [len(song.stems) for song in songs] == [3]
    assert refusals.counts == {"stem twice": 1, "piece twice": 1, "no stems": 1}
    shutil.rmtree(tmp_path / "train" / "one")
    (tmp_path / "train" / "one.stem.mp4").unlink()
    with pytest.raises(UserError, match=r"no recordings with split 'train'; the .* has no stems"):
        read_source(source)


def test_each_speaker_of_a_conversation_is_a_target_against_the_others(tmp_path):
    rng = np.random.default_rng(0)
    channels = [make_sound(rng, 5.0), make_sound(rng, 5.0)]
    soundfile.write(tmp_path / "call.flac", np.stack(channels, -1), RATE)
    line = {"path": "call.flac", "duration": 5.0, "source_id": "call"}
    line["conversation"] = [{"caption": "woman speaking"}, {"caption": "man speaking"}]
    write_jsonl(tmp_path / "manifest.jsonl", [line])
    cfg = toy.config(str(tmp_path / "manifest.jsonl"), recipes=(("speaker", "others", 1.0),))
    cfg = toy.replaced(cfg, snr_db=(15.0, 15.0), speed_share=0.0)
    for source in (cfg.source, streamed(cfg.source)):
        mixer = pipeline.mixer(dataclasses.replace(cfg, source=source), RATE, HOP)
        drawn = [mixer.draw(np.random.default_rng(number)) for number in range(12)]
        assert {one.target_texts[0] for one in drawn} == {"woman speaking", "man speaking"}
        for one in drawn:
            assert not set(one.target_texts) & set(one.residual_texts)
            wave = channels[one.target_places[0].number]
            start = one.target_places[0].start
            part = wave[start : start + len(one.target)]
            assert np.corrcoef(part, one.target)[0, 1] > 0.999
            power = [np.mean(np.square(w)) for w in (one.target, one.residual)]
            assert 10 * np.log10(power[0] / power[1]) == pytest.approx(15.0, abs=2.0)


def test_ids_are_of_one_manifest_alone(tmp_path):
    """Two folders with the same ids: each song has the stems of its own folder."""
    rng = np.random.default_rng(0)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        lines = []
        for stem in ("drums", "bass"):
            soundfile.write(folder / f"{stem}.wav", make_sound(rng, 4.0), RATE)
            line = {"id": stem, "path": f"{stem}.wav", "caption": f"{stem} playing"}
            line |= {"category": "music", "source_id": f"{folder.name} {stem}", "duration": 4.0}
            lines.append(line | {"song": "1", "stem": stem})
        write_jsonl(folder / "manifest.jsonl", lines)
        songs = [{"song": "1", "stems": [{"id": "drums"}, {"id": "bass"}]}]
        write_jsonl(folder / "songs.jsonl", songs)
    manifests = tuple(str(tmp_path / name / "manifest.jsonl") for name in "ab")
    for source in (SourceConfig(manifests=manifests), streamed(SourceConfig(manifests=manifests))):
        table = open_library(source, RATE).table
        assert [list(song) for song in table.lists("songs")] == [[0, 1], [2, 3]]


def test_the_kind_of_a_song_is_read(tmp_path):
    write_jsonl(tmp_path / "songs.jsonl", [{"song": "1", "stems": [], "kind": "conversation"}])
    assert [song.kind for song in load_songs([str(tmp_path / "manifest.jsonl")], "train")] == [
        "conversation"
    ]
    write_jsonl(tmp_path / "songs.jsonl", [{"song": "1", "stems": [], "kind": "opera"}])
    with pytest.raises(UserError, match="kind 'opera' must be song or conversation"):
        load_songs([str(tmp_path / "manifest.jsonl")], "train")
