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
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.video import CODECS, mux

# What one item may leave.
ONE_ITEM = ("target.wav", "residual.wav", "spectrogram.png", *(f"target{end}" for end in CODECS))


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


def write_stems(folder: pathlib.Path, item: Item, stems: Stems, prefix: str = "") -> list[str]:
    """Both waves and, where the item has a video file, that with the target as its sound."""
    names = []
    for name in ("target", "residual"):
        names.append(f"{prefix}{name}.wav")
        wave = np.atleast_2d(getattr(stems, name))
        audio.write_wav(folder / names[-1], wave, stems.sample_rate)
    path = None if item.clip is None else item.clip.path
    if path is not None:
        suffix = path.suffix.lower()
        names.append(f"{prefix}target{suffix if suffix in CODECS else '.mp4'}")
        wave = np.atleast_2d(stems.target)
        wave = wave if len(wave) <= 2 else wave.mean(0, keepdims=True)
        mux(path, wave, stems.sample_rate, folder / names[-1])
    return names


def write_one(folder: pathlib.Path, item: Item, stems: Stems) -> list[str]:
    """The files of one item, whose names are returned: stems, video, `spectrogram.png`."""
    names = write_stems(folder, item, stems)
    mixture = audio.mono(item.recording.samples)
    waves = {
        "mixture": audio.resample(mixture, item.recording.sample_rate, stems.sample_rate),
        "target": audio.mono(np.atleast_2d(stems.target)),
        "residual": audio.mono(np.atleast_2d(stems.residual)),
    }
    picture = spectrograms_png(waves, stems.sample_rate, spans=stems.spans, title=item.text)
    (folder / "spectrogram.png").write_bytes(picture)
    return [*names, "spectrogram.png"]
