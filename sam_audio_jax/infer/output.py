"""The files of a separation: stems, the video with the target as its sound, a spectrogram."""

import pathlib

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError, describe
from sam_audio_jax.files import PART, check_writable, whole_file
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.picture import spectrograms_png
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.video.muxing import CODECS, mux

PICTURE = "spectrogram.png"
# Files that the result of one recording may consist of.
ONE_ITEM = ("target.wav", "residual.wav", PICTURE, *(f"target{end}" for end in CODECS))


def check_result_folder(out: pathlib.Path, *, overwrite: bool) -> None:
    """Raises UserError unless `out` is missing, empty or, with `overwrite`, an earlier result.

    It must also be possible to write there.
    """
    check_writable(out, "--out")
    if not out.exists():
        return
    names = sorted(file.name for file in out.iterdir() if PART not in file.name)
    foreign = [name for name in names if name not in ONE_ITEM]
    if foreign:
        raise UserError(f"{out} holds other files ({foreign[0]}); --out must name a new folder")
    if names and not overwrite:
        raise UserError(f"{out} holds an earlier result; add --overwrite or name a new folder")


def write_stems(folder: pathlib.Path, item: Item, stems: Stems, prefix: str = "") -> list[str]:
    """Writes both waves and, for an item with a video file, that with the target as its sound.

    Returns the names of the files, which begin with `prefix`.
    """
    return write_waves(folder, stems, prefix) + write_video(folder, item, stems, prefix)


def write_waves(folder: pathlib.Path, stems: Stems, prefix: str = "") -> list[str]:
    """Writes target and residual; returns the names of the files."""
    names = []
    for name in ("target", "residual"):
        names.append(f"{prefix}{name}.wav")
        wave = np.atleast_2d(getattr(stems, name))
        audio.write_wav(folder / names[-1], wave, stems.sample_rate)
    return names


def write_video(folder: pathlib.Path, item: Item, stems: Stems, prefix: str = "") -> list[str]:
    """Writes the item's video file with the target as its sound; returns its name, if any."""
    path = None if item.clip is None else item.clip.path
    if path is None:
        return []
    suffix = path.suffix.lower()
    name = f"{prefix}target{suffix if suffix in CODECS else '.mp4'}"
    wave = np.atleast_2d(stems.target)
    wave = wave if len(wave) <= 2 else item.mix(wave)[None]
    mux(path, wave, stems.sample_rate, folder / name)
    return [name]


def write_one(folder: pathlib.Path, item: Item, stems: Stems) -> tuple[list[str], list[str]]:
    """Writes the files of one recording: stems, video, `spectrogram.png`.

    Returns the names of the files, and why others are missing: once there are stems, no error of a
    later file takes them away.
    """
    names, missing = write_waves(folder, stems), []
    for name, write in (("the video", write_video), (PICTURE, write_picture)):
        try:
            names += write(folder, item, stems)
        except Exception as error:
            missing.append(f"no {name}: {describe(error)}")
    return names, missing


def write_picture(folder: pathlib.Path, item: Item, stems: Stems) -> list[str]:
    """Writes the spectrograms of mixture and stems; returns the name of the file in a list."""
    mixture = item.mix(item.recording.samples)
    waves = {
        "mixture": audio.resample(mixture, item.recording.sample_rate, stems.sample_rate),
        "target": item.mix(np.atleast_2d(stems.target)),
        "residual": item.mix(np.atleast_2d(stems.residual)),
    }
    picture = spectrograms_png(waves, stems.sample_rate, spans=stems.spans, title=item.text)
    with whole_file(folder / PICTURE) as part:
        part.write_bytes(picture)
    return [PICTURE]
