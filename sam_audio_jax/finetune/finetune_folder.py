"""The folder of one fine-tuning: its own files, and the model or adapter that comes out.

data.html                what was found in the recordings
data/                    manifest.jsonl, with songs songs.jsonl: the recordings, where they lie
bench/                   held-out mixtures, rendered
train.json, train.py     the config, for `sam-audio train DIR/train.py --workdir DIR/run`
latents/                 mixtures that were encoded ahead, where that is faster
run/                     the workdir of the training
evaluations/             before/ and STEP/: reports on the bench
report.html, gains.json  what changed
README.md                the model card; beside it the model, or the adapter
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator

from sam_audio_jax.config import to_dict
from sam_audio_jax.data.recording import recording_line, song_line
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import (
    PART,
    check_writable,
    read_jsonl,
    remove_parts,
    whole_file,
    whole_folder,
    write_json,
    write_jsonl,
)
from sam_audio_jax.finetune.own_recordings import OwnRecordings
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.workdir import Workdir

TRAIN_FILE = '''"""The training that `sam-audio finetune` has laid out, in train.json."""

import pathlib

from sam_audio_jax.config import from_dict
from sam_audio_jax.files import read_object
from sam_audio_jax.train.config import TrainConfig

CONFIG = from_dict(TrainConfig, read_object(pathlib.Path(__file__).with_name("train.json")))
'''


@dataclasses.dataclass(frozen=True)
class FinetuneFolder:
    """The paths in the folder, and the files that are laid out before a training."""

    path: pathlib.Path

    @property
    def data(self) -> pathlib.Path:
        return self.path / "data"

    @property
    def bench(self) -> pathlib.Path:
        return self.path / "bench"

    @property
    def latents(self) -> pathlib.Path:
        return self.path / "latents"

    @property
    def train_file(self) -> pathlib.Path:
        return self.path / "train.py"

    @property
    def workdir(self) -> Workdir:
        return Workdir(self.path / "run")

    def evaluation(self, name: str) -> pathlib.Path:
        """The report on the model before the training, or after a step."""
        return self.path / "evaluations" / name

    def claim(self) -> None:
        """Raises `UserError` for a folder that holds anything else than a fine-tuning."""
        check_writable(self.path, "--workdir")
        if not self.path.is_dir():
            return
        remove_parts(self.path)
        there = {entry.name for entry in self.path.iterdir()}
        if there and not (there & {"data.html", "train.json"}):
            raise UserError(f"--workdir {self.path} holds something else: name a new folder")

    def write_page(self, text: str) -> None:
        """Writes data.html."""
        with whole_file(self.path / "data.html") as part:
            part.write_text(text, encoding="utf-8")

    def write_data(self, own: OwnRecordings) -> bool:
        """Writes the manifest and the songs; returns whether they are others than before.

        Raises `UserError` where a training has begun with others.
        """
        recordings = [recording_line(sound.recording) for sound in own.sounds]
        songs = [song_line(song) for song in own.songs]
        then = [read_jsonl(self.data / name) for name in ("manifest.jsonl", "songs.jsonl")]
        if then == [recordings, songs]:
            return False
        if self.workdir.steps():
            raise UserError(
                f"{own.path} has changed since the training in {self.workdir.path} began: name "
                "another folder by --workdir"
            )
        with whole_folder(self.data, overwrite=True) as part:
            write_jsonl(part / "manifest.jsonl", recordings)
            if songs:
                write_jsonl(part / "songs.jsonl", songs)
        return True

    def write_config(self, config: TrainConfig) -> None:
        """Writes the config, as a file that `sam-audio train` and `prepare` take."""
        write_json(self.path / "train.json", to_dict(config))
        with whole_file(self.train_file) as part:
            part.write_text(TRAIN_FILE, encoding="utf-8")

    @contextlib.contextmanager
    def result(self) -> Iterator[pathlib.Path]:
        """Yields the path of a folder to make, whose content is then moved beside the other files.

        It replaces an earlier result. config.json and adapter.json go first and come last, so that
        a folder that is read as a model or adapter is whole, with its report.
        """
        staged = self.path.absolute() / f".result{PART}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            yield staged
            last = ("config.json", "adapter.json")
            for name in last:
                (self.path / name).unlink(missing_ok=True)
            for entry in sorted(staged.iterdir(), key=lambda entry: entry.name in last):
                target = self.path / entry.name
                if target.is_dir():
                    shutil.rmtree(target)
                entry.replace(target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
