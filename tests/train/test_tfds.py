"""A data set of TensorFlow Datasets, read and trained on without TensorFlow."""

import dataclasses
import json
import pathlib
import runpy
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.library import open_library
from sam_audio_jax.data.pipeline import separation_batches
from sam_audio_jax.data.recording_table import RecordingTable
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train import loop
from sam_audio_jax.train.objective import make_separator_training
from tests.tiny import filled

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
NAMES = ("dog_barking", "cat_meowing", "rain")
FIELDS = (("sound", "audio"), ("caption", "label"), ("source_id", "file"), ("sample_rate", "=800"))


class Tones(tfds.core.GeneratorBasedBuilder):
    """Twelve tones of one second, three classes."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # to find it TFDS needs importlib_resources, which it does not declare

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),
                "label": tfds.features.ClassLabel(names=NAMES),
                "file": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(12):
            wave = 9_000 * np.sin(0.2 * (number + 1) * np.arange(800))
            label = number % len(NAMES)
            yield number, {"audio": wave.astype(np.int16), "label": label, "file": f"{number}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """The prepared data set."""
    builder = Tones(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_path)


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_AUDIO_CACHE", str(tmp_path / "cache"))


def source(folder: str, fields=FIELDS) -> SourceConfig:
    return SourceConfig(tfds=(folder,), tfds_fields=fields)


def as_audio(folder: str) -> None:
    """Rewrites the description of the samples as that of `tfds.features.Audio`, which needs TF."""
    path = pathlib.Path(folder) / "features.json"
    described = json.loads(path.read_text())
    feature = described["featuresDict"]["features"]["audio"]
    feature["pythonClassName"] = "tensorflow_datasets.core.features.audio_feature.Audio"
    feature["audio"] = feature.pop("tensor") | {"sampleRate": "800"}
    path.write_text(json.dumps(described))


def test_examples_become_recordings_as_data_source_reads_them(folder):
    library = open_library(source(folder), 800)
    examples = tfds.builder_from_directory(folder).as_data_source("train")
    assert len(library.table.recordings) == len(examples) == 12
    for number, example in enumerate(examples):
        recording = library.table.recordings[number]
        assert recording.caption == NAMES[example["label"]].replace("_", " ")
        assert recording.source_id == example["file"].decode()
        assert (recording.duration, recording.record) == (1.0, number)
        wave = example["audio"] / np.float32(32_768)
        np.testing.assert_allclose(library.waves.read(number, 100, 600), wave[100:700], atol=1e-6)
    assert "tensorflow" not in sys.modules


def test_a_step_is_trained_from_a_data_set_of_audio_features(folder, tmp_path):
    as_audio(folder)
    with pytest.raises(ModuleNotFoundError):
        tfds.builder_from_directory(folder)
    data = dataclasses.replace(TINY.data, source=source(folder, FIELDS[:3]))
    config = dataclasses.replace(TINY, data=data, steps=1, log_every=1)
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    start = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    state, step, frozen = make_separator_training(config, codec, mesh, start)
    batches = separation_batches(config.data, 800, config.codec.hop, config.batch)
    arguments = {"config": config, "workdir": tmp_path / "run", "mesh": mesh, "frozen": frozen}
    state = loop.train_and_evaluate(
        **arguments,
        state=state,
        step=step,
        batches=batches,
        frames_per_step=lambda: batches.frames,
    )
    batches.close()
    assert int(state.step) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((("sound", "wave"), ("caption", "label")), "has no feature 'wave'"),
        ((("sound", "audio"),), "tfds_fields has no 'caption'"),
        ((*FIELDS, ("colour", "label")), "tfds_fields has 'colour'; fields are"),
    ],
)
def test_fields_that_do_not_fit_are_named(folder, fields, message):
    with pytest.raises(UserError, match=message):
        open_library(source(folder, fields), 800)


def test_a_missing_set_and_a_missing_split_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="no TFDS data set in"):
        open_library(source(str(tmp_path)), 800)
    with pytest.raises(UserError, match="has no split 'test'; it has train"):
        open_library(dataclasses.replace(source(folder), split="test"), 800)


class Stems(Tones):
    """Three songs of two stems, of which the last has stems of two lengths, and two effects."""

    def _info(self):
        text = tfds.features.Text()
        samples = tfds.features.Tensor(shape=(None,), dtype=np.int16)
        names = {"label": text, "song": text, "stem": text, "category": text}
        features = tfds.features.FeaturesDict({"audio": samples, "number": np.int64, **names})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self):
        rows = [(song, stem) for song in range(3) for stem in ("drums", "bass")]
        rows += [(-1, "dog"), (-1, "cat")]
        for number, (song, stem) in enumerate(rows):
            wave = 9_000 * np.sin(0.2 * (number + 1) * np.arange(900 if number == 5 else 800))
            is_stem = song >= 0
            yield (
                number,
                {
                    "audio": wave.astype(np.int16),
                    "label": f"{stem} playing" if is_stem else f"{stem} crying",
                    "song": f"song {song}" if is_stem else "",
                    "stem": stem if is_stem else "",
                    "number": song,
                    "category": "music" if is_stem else "sfx",
                },
            )


def songs_in(table: RecordingTable) -> list[list[str]]:
    """The stems of each song with its number, all in order: TFDS shuffles examples."""
    songs = [[table.recordings[int(number)] for number in one] for one in table.lists("songs")]
    named = [[f"{one.stem} {(one.song or '').split()[-1]}" for one in song] for song in songs]
    return sorted(map(sorted, named), key=lambda song: song[0].split()[-1])


def test_examples_of_one_song_are_its_stems(tmp_path, caplog):
    builder = Stems(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    fields = (*FIELDS[:2], FIELDS[3], ("category", "category"), ("stem", "stem"))
    named = source(str(builder.data_path), (*fields, ("song", "song")))
    table = open_library(named, 800).table
    assert songs_in(table) == [["bass 0", "drums 0"], ["bass 1", "drums 1"]]
    assert "song 'song 2' has stems of 1.00 to 1.12 s: they are not one excerpt" in caplog.text
    effects = [table.recordings[int(number)] for number in table.numbers("sfx")]
    assert sorted((one.caption, one.song, one.stem) for one in effects) == [
        ("cat crying", None, None),
        ("dog crying", None, None),
    ]
    counted = source(str(builder.data_path), (*fields, ("song", "number")))
    songs = songs_in(open_library(counted, 800).table)
    assert songs[1:] == [["bass 0", "drums 0"], ["bass 1", "drums 1"]]  # 0 is a song, too
