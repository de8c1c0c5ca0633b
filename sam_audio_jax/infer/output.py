"""The files of a separation: stems, the video with the target as its sound, a spectrogram."""

import pathlib

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.picture import spectrograms_png
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.video.muxing import CODECS, mux

# Files that the result of one recording may consist of.
ONE_ITEM = ("target.wav", "residual.wav", "spectrogram.png", *(f"target{end}" for end in CODECS))


def check_result_folder(out: pathlib.Path, *, overwrite: bool) -> None:
    """Raises UserError unless `out` is missing, empty or, with `overwrite`, an earlier result."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a folder")
    names = sorted(file.name for file in out.iterdir())
    foreign = [name for name in names if name not in ONE_ITEM]
    if foreign:
        raise UserError(f"{out} holds other files ({foreign[0]}); --out must name a new folder")
    if names and not overwrite:
        raise UserError(f"{out} holds an earlier result; add --overwrite or name a new folder")


def write_stems(folder: pathlib.Path, item: Item, stems: Stems, prefix: str = "") -> list[str]:
    """Writes both waves and, for an item with a video file, that with the target as its sound.

    Returns the names of the files, which begin with `prefix`.
    """
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
        wave = wave if len(wave) <= 2 else item.mix(wave)[None]
        mux(path, wave, stems.sample_rate, folder / names[-1])
    return names


def write_one(folder: pathlib.Path, item: Item, stems: Stems) -> list[str]:
    """Writes the files of one recording: stems, video, `spectrogram.png`; returns their names."""
    names = write_stems(folder, item, stems)
    mixture = item.mix(item.recording.samples)
    waves = {
        "mixture": audio.resample(mixture, item.recording.sample_rate, stems.sample_rate),
        "target": item.mix(np.atleast_2d(stems.target)),
        "residual": item.mix(np.atleast_2d(stems.residual)),
    }
    picture = spectrograms_png(waves, stems.sample_rate, spans=stems.spans, title=item.text)
    (folder / "spectrogram.png").write_bytes(picture)
    return [*names, "spectrogram.png"]
