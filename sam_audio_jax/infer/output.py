"""The files of a separation: stems, the video with the target as its sound, a spectrogram."""

import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError, describe
from sam_audio_jax.files import check_writable, is_part, whole_file
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.picture import spectrograms_png
from sam_audio_jax.infer.stems import Stems, TextStems
from sam_audio_jax.video.muxing import CODECS, mux

PICTURE = "spectrogram.png"
# Files that the result of one recording may consist of.
ONE_ITEM = ("target.wav", "residual.wav", "rest.wav", PICTURE, *(f"target{end}" for end in CODECS))
OF_A_TEXT = (".target.wav", ".residual.wav")  # ends of files whose names begin with a text's
LONGEST_TEXT_NAME = 40  # bytes; an item's id comes before it


def check_result_folder(out: pathlib.Path, *, overwrite: bool) -> None:
    """Raises UserError unless `out` is missing, empty or, with `overwrite`, an earlier result.

    It must also be possible to write there.
    """
    check_writable(out, "--out")
    if not out.exists():
        return
    names = sorted(file.name for file in out.iterdir() if not is_part(file.name))
    foreign = [name for name in names if name not in ONE_ITEM and not name.endswith(OF_A_TEXT)]
    if foreign:
        raise UserError(f"{out} holds other files ({foreign[0]}); --out must name a new folder")
    if names and not overwrite:
        raise UserError(f"{out} holds an earlier result; add --overwrite or name a new folder")


def check_not_replaced(out: pathlib.Path, inputs: Sequence[str | None]) -> None:
    """Raises UserError for an input in `out`, a result folder that is written anew."""
    folder = os.path.realpath(out)
    for path in inputs:
        if path is not None and os.path.dirname(os.path.realpath(path)) == folder:
            raise UserError(f"{path} is a file of the earlier result that --out would replace")


def file_names(texts: Sequence[str]) -> list[str]:
    """Returns for each text the beginning of its files' names: readable, safe, all different.

    Characters other than letters, digits and "-" become "_"; a name that is there already gets a
    number. Names that differ in case alone count as equal, because some file systems think so.
    """
    names: list[str] = []
    for text in texts:
        plain = re.sub(r"[^\w-]+", "_", text).strip("_") or "text"
        name, number = _cut(plain, ""), 1
        while name.casefold() in (other.casefold() for other in names):
            number += 1
            name = _cut(plain, f"-{number}")
        names.append(name)
    return names


def _cut(name: str, end: str) -> str:
    """The name with an end, cut to the longest that is allowed."""
    room = LONGEST_TEXT_NAME - len(end)
    return name.encode()[:room].decode(errors="ignore") + end


def waves_of(stems: Stems | TextStems) -> dict[str, Float[np.ndarray, "*channels samples"]]:
    """Returns the waves of a result by the names of their files, less .wav.

    Of joint stems the residuals are left out: they are what the other files have.
    """
    if isinstance(stems, Stems):
        return {"target": stems.target, "residual": stems.residual}
    kinds = ("target",) if stems.joint else ("target", "residual")
    named = zip(file_names(list(stems)), stems.values(), strict=True)
    waves = {f"{name}.{kind}": getattr(one, kind) for name, one in named for kind in kinds}
    return waves if stems.rest is None else waves | {"rest": stems.rest}


def write_stems(
    folder: pathlib.Path, item: Item, stems: Stems | TextStems, prefix: str = ""
) -> list[str]:
    """Writes the waves and, for an item with a video file, that with the target as its sound.

    Returns the names of the files, which begin with `prefix`.
    """
    return write_waves(folder, stems, prefix) + write_video(folder, item, stems, prefix)


def write_waves(folder: pathlib.Path, stems: Stems | TextStems, prefix: str = "") -> list[str]:
    """Writes all waves of a result; returns the names of the files."""
    names = []
    for name, wave in waves_of(stems).items():
        names.append(f"{prefix}{name}.wav")
        audio.write_wav(folder / names[-1], np.atleast_2d(wave), stems.sample_rate)
    return names


def write_video(
    folder: pathlib.Path, item: Item, stems: Stems | TextStems, prefix: str = ""
) -> list[str]:
    """Writes the item's video file with the target as its sound; returns its name, if any."""
    path = None if item.clip is None else item.clip.path
    if (
        item.clip is None or path is None or isinstance(stems, TextStems)
    ):  # a video prompts one sound alone
        return []
    suffix = path.suffix.lower()
    name = f"{prefix}target{suffix if suffix in CODECS else '.mp4'}"
    wave = np.atleast_2d(stems.target)
    wave = wave if len(wave) <= 2 else item.mix(wave)[None]
    mux(path, wave, stems.sample_rate, folder / name, item.clip.track)
    return [name]


def write_one(
    folder: pathlib.Path, item: Item, stems: Stems | TextStems
) -> tuple[list[str], list[str]]:
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


def write_picture(folder: pathlib.Path, item: Item, stems: Stems | TextStems) -> list[str]:
    """Writes the spectrograms of mixture and stems; returns the name of the file in a list."""
    mixture = item.mix(item.recording.samples)
    waves = {
        "mixture": audio.resample(mixture, item.recording.sample_rate, stems.sample_rate),
    }
    waves |= {name: item.mix(np.atleast_2d(wave)) for name, wave in waves_of(stems).items()}
    # Spans of several texts would be marks of different sounds in one picture.
    several = isinstance(stems, TextStems)
    title, spans = (", ".join(stems), ()) if several else (item.text, stems.spans)
    picture = spectrograms_png(waves, stems.sample_rate, spans=spans, title=title)
    with whole_file(folder / PICTURE) as part:
        part.write_bytes(picture)
    return [PICTURE]
