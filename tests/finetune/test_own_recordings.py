"""Folders of own recordings: what is found, what is left out and why, what is held out."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from sam_audio_jax.cli import finetune
from sam_audio_jax.data.source import load_manifest, load_songs
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.finetune.data_page import data_page, lines
from sam_audio_jax.finetune.finetune_folder import FinetuneFolder
from sam_audio_jax.finetune.mixed_bench import BenchComposer, write_bench
from sam_audio_jax.finetune.own_recordings import look
from sam_audio_jax.finetune.split_sources import HELD_OUT, TRAIN, part_of, split
from sam_audio_jax.finetune.start_config import recipes


def ids(own, part):
    return {sound.recording.id for sound in part_of(own, part)}


def classes(write):
    for number in range(6):
        write(f"dog_barking/{number}.wav", number)
        write(f"rain/{number}.flac", 10 + number)
    return write("rain/5.flac", 15)


def test_classes_and_what_is_wrong_with_their_files(write):
    folder = classes(write)
    write("dog_barking/short.wav", 20, seconds=0.2)
    write("loose.wav", 21)
    (folder / "rain" / "text.wav").write_text("no sound")
    (folder / "rain" / "notes.txt").write_text("a note")
    (folder / "rain" / ".hidden.wav").write_text("")
    soundfile.write(folder / "rain" / "silent.wav", np.zeros(8_000), 8_000)
    own = look(folder)
    assert own.layout == "classes"
    assert own.others == 1
    assert {name: len(some) for name, some in own.by_caption().items()} == {
        "dog barking": 6,
        "rain": 6,
    }
    reasons = {problem.what: problem.reason for problem in own.problems}
    assert reasons.pop("rain/text.wav")
    assert reasons == {
        "dog_barking/short.wav": "too short: 0.20 s, 0.25 s or more are needed",
        "loose.wav": "is in no folder, whose name would be its prompt",
        "rain/silent.wav": "silent",
    }
    found = split(own)
    text = "\n".join(lines(found))
    assert "12 recordings, 0.3 min; 12 8000 Hz, 12 mono" in text
    assert "dog barking" in text
    assert "left out: rain/silent.wav: silent" in text
    page = data_page(found)
    assert "loose.wav" in page
    assert "http" not in page.replace("http-equiv", "")  # needs no other file


def test_a_share_of_each_class_is_held_out_by_source_and_stays_so(write):
    folder = classes(write)
    copy = folder / "rain" / "again.flac"  # the same bytes under another name: one source
    own = split(look(folder))
    held = ids(own, HELD_OUT)
    assert {name.split("/")[0] for name in held} == {"dog_barking", "rain"}
    assert len(held) == 2
    assert not held & ids(own, TRAIN)
    (rain,) = (name for name in held if name.startswith("rain"))
    copy.write_bytes((folder / rain).read_bytes())
    assert {rain, "rain/again.flac"} <= ids(split(look(folder)), HELD_OUT)
    copy.unlink()
    for number in range(6, 9):
        write(f"dog_barking/{number}.wav", number)
    assert held & ids(split(look(folder)), HELD_OUT)
    assert recipes(own) == (("any", "any", 1.0),)


def test_stems_of_a_song_belong_together(write, tmp_path):
    for song in range(3):
        for number, stem in enumerate(("vocals", "Drum_Kit", "other", "mixture")):
            write(f"song {song}/{stem}.wav", 5 * song + number)
    write("song 2/vocals.wav", 10, seconds=1.2)
    folder = write("lonely/vocals.wav", 99)
    own = split(look(folder))
    assert own.layout == "songs"
    assert list(own.by_caption()) == ["Drum Kit", "other", "vocals"]
    assert [song.split for song in own.songs].count(HELD_OUT) == 1
    assert {problem.what: problem.reason for problem in own.problems} == {
        "lonely/vocals.wav": "is the only stem of its song"
    }
    assert "stems of 1.2 to 1.5 s: used up to the shortest" in own.notes[0].reason
    assert recipes(own) == (("stem", "rest", 1.0),)
    for song in own.songs:
        assert {name.split("/")[0] for name in song.stems} == {song.name}

    paths = FinetuneFolder(tmp_path / "out")
    assert paths.write_data(own)
    assert not paths.write_data(own)  # nothing has changed
    manifest = str(paths.data / "manifest.jsonl")
    assert len(load_manifest(manifest)) == 9
    assert len(load_songs([manifest], TRAIN)) == 2

    count = write_bench(own, paths.bench, 4_000, 1.0)
    bench = load_bench(paths.bench)
    assert count == len(bench.mixtures) > 1
    assert {item.setting for item in bench.mixtures} == {"vocals", "Drum Kit"}  # other has no name
    for item in bench.mixtures:
        assert item.spans
        rendered = render(bench, item)  # checks the listed peak
        np.testing.assert_array_equal(rendered.mixture, rendered.target + rendered.residual)
    first = (paths.bench / "mixtures.jsonl").read_bytes()
    write_bench(own, paths.bench, 4_000, 1.0)
    assert (paths.bench / "mixtures.jsonl").read_bytes() == first


def test_a_manifest_says_what_is_held_out(write, tmp_path):
    folder = classes(write)
    manifest = tmp_path / "mine.jsonl"
    rows = [
        {
            "path": str(folder / (f"dog_barking/{n}.wav" if dog else f"rain/{n}.flac")),
            "caption": "a dog" if dog else "rain",
            "category": "sfx",
            "source_id": f"{dog} {n // 2}",
            "duration": 1.5,
            "split": "valid" if n == 0 else "train",
        }
        for dog in (0, 1)
        for n in range(6)
    ]
    text = [json.dumps(row) for row in rows]
    manifest.write_text("\n".join([*text, "{", '{"path": "gone.wav"}']))
    own = split(look(manifest))
    assert own.layout == "manifest"
    assert {sound.recording.source_id for sound in part_of(own, HELD_OUT)} == {"0 0", "1 0"}
    assert {sound.recording.source_id for sound in part_of(own, TRAIN)} == {
        *("0 1", "0 2", "1 1", "1 2"),
    }
    reasons = [problem.reason for problem in own.problems]
    assert reasons.count("its source is held out in other lines") == 2
    assert len(reasons) == 4


def reasons_of(own):
    return {problem.what: problem.reason for problem in own.problems}


def test_a_stem_that_a_song_has_twice_is_used_once(write):
    """Else the second one would be in the residual of the first."""
    for song in range(3):
        for number, file in enumerate(("vocals.wav", "drums.wav", "Vocals.flac")):
            write(f"song {song}/{file}", 5 * song + number)
    folder = write("song 2/alternative/drums.wav", 30)  # of the same file name as another
    own = split(look(folder))
    assert reasons_of(own) == {
        **{
            f"song {song}/vocals.wav": f"is the stem that song {song}/Vocals.flac is already"
            for song in range(3)
        },
        "song 2/drums.wav": "is the stem that song 2/alternative/drums.wav is already",
    }
    assert all(len(song.stems) == 2 for song in own.songs)
    for line in BenchComposer(own, 4_000, 1.0).lines():
        assert line["caption"] not in line["residual_captions"]


def test_a_stem_beside_another_of_its_name_is_no_target_of_the_bench(write, tmp_path):
    stems = ("drums", "drums", "bass")
    rows, songs = [], []
    for song in range(2):
        for number in range(len(stems)):
            folder = write(f"{song}{number}.wav", 5 * song + number)
        names = [f"{song}{number}" for number in range(len(stems))]
        part = ("train", "valid")[song]
        rows += [
            {
                **{"id": name, "path": str(folder / f"{name}.wav"), "caption": stem},
                **{"category": "music", "source_id": f"s{song}", "duration": 1.5},
                **{"song": f"s{song}", "stem": stem, "split": part},
            }
            for name, stem in zip(names, stems, strict=True)
        ]
        songs.append({"song": f"s{song}", "split": part, "stems": [{"id": name} for name in names]})
    for name, values in (("manifest", rows), ("songs", songs)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, values)))
    own = split(look(tmp_path / "manifest.jsonl"))
    assert [len(song.stems) for song in own.songs] == [3, 3]
    assert {line["caption"] for line in BenchComposer(own, 4_000, 1.0).lines()} == {"bass"}


def test_splits_of_a_manifest_that_are_for_neither_are_left_out(write, tmp_path):
    folder = classes(write)
    manifest = tmp_path / "mine.jsonl"

    def listed(split_of):
        rows = [
            {
                **{"id": f"{name}{n}", "path": str(folder / name / f"{n}.{suffix}")},
                **{"caption": name, "category": "sfx", "source_id": f"{name} {n}"},
                **{"duration": 1.5, "split": split_of(n)},
            }
            for name, suffix in (("dog_barking", "wav"), ("rain", "flac"))
            for n in range(6)
        ]
        rows[0] |= {"source_id": "dog_barking 5"}  # of a source that is not to be trained on
        manifest.write_text("\n".join(map(json.dumps, rows)))
        return look(manifest)

    own = split(listed(lambda n: "test" if n == 5 else "train"))
    assert not {"dog_barking0", "dog_barking5", "rain5"} & {s.recording.id for s in own.sounds}
    neither = "its split 'test' is neither train nor valid"
    assert reasons_of(own) == {
        "dog_barking5": neither,
        "rain5": neither,
        "dog_barking0": "its source is of another split in other lines",
    }
    with pytest.raises(UserError, match="no line of the split train or valid that can be used"):
        split(listed(lambda n: "test"))


def test_names_that_a_model_reads_alike_are_one_prompt(write):
    for number in range(3):
        write(f"Dog/{number}.wav", number)
        write(f"dog./{number}.wav", 10 + number)
        folder = write(f"rain/{number}.wav", 20 + number)
    own = split(look(folder))
    assert {name: len(some) for name, some in own.by_caption().items()} == {"Dog": 6, "rain": 3}
    assert [(note.what, note.reason) for note in own.notes] == [
        ("dog.", "is the same prompt as 'Dog'")
    ]
    for line in BenchComposer(own, 4_000, 1.0).lines():
        assert [line["caption"]] != line["residual_captions"]


def test_links_are_followed_once_and_what_is_left_out_is_named(write, tmp_path):
    folder = classes(write)
    for number in range(2):
        write(f"../elsewhere/{number}.wav", 30 + number)
    (folder / "bird").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder / "rain")
    (folder / "rain" / "above").symlink_to(folder)
    (folder / "rain" / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    own = look(folder)
    assert len(own.by_caption()["bird"]) == 2
    assert len(own.sounds) == 14
    assert reasons_of(own) == {
        "again": "is the folder 'rain' again",
        "rain/above": "is the folder '.' again",
        "rain/lost.wav": "is no file, or a link to none",
    }


def test_what_a_fine_tuning_wrote_is_not_trained_on(write, tmp_path, capsys):
    folder = classes(write)
    for name in ("data.html", "train.json"):
        path = write("old_model/bench/clips/0.wav", 40) / "old_model" / name
        path.write_text("{}")
    own = look(folder)
    assert set(own.by_caption()) == {"dog barking", "rain"}
    assert reasons_of(own) == {"old_model": "is the folder of a fine-tuning"}
    for out in (folder / "new", tmp_path):
        assert finetune.main([str(folder), "--check", "--workdir", str(out)]) == 2
        assert "lie in one another" in capsys.readouterr().err
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no folder or manifest"),
        (["a/notes.txt"], "has no recording that can be used: 0 left out, 1 other files"),
        (["a/1.wav", "a/2.wav"], "has recordings of 'a' alone, and nothing to separate it from"),
        (["a/1.wav", "b/1.wav"], "two of its classes need two recordings or more"),
        (["--/1.wav", "b/1.wav"], "'--' is no prompt: name folders of classes, and stems, by w"),
        (["s/vocals.wav", "s/drums.wav", "songs"], "has 1 song: two or more are needed"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(names, message, write, tmp_path, capsys):
    for number, name in enumerate(names):
        if name.endswith(".wav"):
            write(name, number)
        elif name.endswith(".txt"):
            (tmp_path / "sounds" / name).parent.mkdir(parents=True)
            (tmp_path / "sounds" / name).write_text("a note")
    out = tmp_path / "out"
    layout = ["--layout", "songs"] if "songs" in names else []
    arguments = [str(tmp_path / "sounds"), "--check", "--workdir", str(out), *layout]
    assert finetune.main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert message in text
    assert not (out / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--from is missing: name the model to start from"),
        (["--from", "nowhere"], "no checkpoint 'nowhere'; shipped: tiny"),
        (["--from", "./nowhere"], "no model folder ./nowhere"),
        (["--from", "tiny", "--lora", "0"], "argument --lora: 0 must be 1 or more"),
        (["--check", "--steps", "3"], "--steps has no effect with --check"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_decoded(
    arguments, message, write, tmp_path, capsys
):
    folder = write("a/1.wav")
    assert finetune.main([str(folder), "--workdir", str(tmp_path / "out"), *arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: {message}")
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_left_alone(write, tmp_path, capsys):
    folder = classes(write)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert finetune.main([str(folder), "--check", "--workdir", str(tmp_path / "out")]) == 2
    assert "holds something else: name a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_recordings_that_changed_are_not_mixed_into_a_run_that_began(write, tmp_path, monkeypatch):
    own = split(look(classes(write)))
    paths = FinetuneFolder(tmp_path / "out")
    paths.write_data(own)
    monkeypatch.setattr(type(paths.workdir), "steps", lambda self: [5])
    assert not paths.write_data(own)
    write("rain/more.wav", 50)
    with pytest.raises(UserError, match=r"has changed since the training in .* began"):
        paths.write_data(split(look(own.path)))


def test_names_that_are_no_text_are_left_out(write):
    folder = classes(write)
    odd = b"caf\xe9.wav"
    try:
        (folder / "rain" / "0.flac").rename(folder / "rain" / os.fsdecode(odd))
        (folder / "rain" / "link.wav").symlink_to(os.fsdecode(odd))
    except OSError:
        pytest.skip("this file system takes no such names")
    own = look(folder)
    assert {problem.what for problem in own.problems} == {r"rain/caf\xe9.wav", "rain/link.wav"}
    assert all("is not UTF-8" in problem.reason for problem in own.problems)
    data_page(split(own)).encode()


def test_a_recording_in_two_classes_is_one_source(write):
    """It would be mixed with itself."""
    folder = classes(write)
    (folder / "weather").mkdir()
    for number in range(6):
        file = folder / "rain" / f"{number}.flac"
        (folder / "weather" / file.name).write_bytes(file.read_bytes())
    own = split(look(folder))
    source = {sound.recording.id: sound.recording.source_id for sound in own.sounds}
    assert {name for name in source if source[name] != name} == {
        f"weather/{number}.flac" for number in range(6)
    }
    assert all(source[f"weather/{n}.flac"] == f"rain/{n}.flac" for n in range(6))
    lines = BenchComposer(own, 8_000, 1.0).lines()
    for target, residual in ((line["target"], line["residual"]) for line in lines):
        assert source[target[0]["clip"]] != source[residual[0]["clip"]]
    shutil.rmtree(folder / "dog_barking")
    for number in range(2, 6):
        (folder / "rain" / f"{number}.flac").unlink()
        (folder / "weather" / f"{number}.flac").unlink()
    own = look(folder)
    with pytest.raises(UserError, match="equal files are one recording; it has 2 of rain"):
        split(own)
