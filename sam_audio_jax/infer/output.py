"""Folders of results that exist whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.picture import spectrograms_png
from sam_audio_jax.infer.separate import Stems

ONE_ITEM = ("target.wav", "residual.wav", "spectrogram.png")


def check_out(out: pathlib.Path, *, overwrite: bool) -> None:
    """A folder to be made may be missing or empty, or with `overwrite` hold an earlier result."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a folder")
    held = sorted(file.name for file in out.iterdir())
    foreign = [name for name in held if name not in ONE_ITEM]
    if foreign:
        raise UserError(f"{out} holds other files ({foreign[0]}); --out must name a new folder")
    if held and not overwrite:
        raise UserError(f"{out} holds an earlier result; add --overwrite or name a new folder")


@contextlib.contextmanager
def whole_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A sibling folder to write into, which takes the place of `out` when nothing went wrong."""
    made = out.parent.absolute()
    made.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(dir=made, prefix=f".{out.name}."))
    try:
        part.chmod(0o755)
        yield part
        if out.exists():
            old = pathlib.Path(tempfile.mkdtemp(dir=made, prefix=f".{out.name}.old."))
            os.replace(out, old)
            os.replace(part, out)
            shutil.rmtree(old)
        else:
            os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_one(folder: pathlib.Path, item: Item, stems: Stems) -> None:
    """`target.wav`, `residual.wav`, `spectrogram.png` of one item."""
    audio.write_wav(folder / "target.wav", np.atleast_2d(stems.target), stems.sample_rate)
    audio.write_wav(folder / "residual.wav", np.atleast_2d(stems.residual), stems.sample_rate)
    recording = item.recording
    mixture = audio.resample(recording.samples.mean(0), recording.sample_rate, stems.sample_rate)
    waves = {
        "mixture": mixture,
        "target": np.atleast_2d(stems.target).mean(0),
        "residual": np.atleast_2d(stems.residual).mean(0),
    }
    picture = spectrograms_png(waves, stems.sample_rate, spans=item.spans, title=item.text)
    (folder / "spectrogram.png").write_bytes(picture)
