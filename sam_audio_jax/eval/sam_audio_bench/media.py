"""The recordings of SAM Audio-Bench: their files, and the part of each that is an item."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.encoders.text_form import has_words
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.file_stamps import file_stamps
from sam_audio_jax.eval.prompting import VIDEO, PromptedMixture, check_spans
from sam_audio_jax.eval.recorded import ListedItem, Recorded, Rendered, Wave
from sam_audio_jax.eval.sam_audio_bench.settings import SETTINGS
from sam_audio_jax.eval.sam_audio_bench.table import ClipRow, SongRow, milliseconds, unpack_masks
from sam_audio_jax.infer.video_prompts import Clip
from sam_audio_jax.video.masks import StretchedMasks
from sam_audio_jax.video.reading import Excerpt, decode_frames

SHORTEST = 0.95  # of an item's length that its recording must have
MIXTURE = "mixture"
STEMS = ("bass", "drums", "vocals", "other")  # of MUSDB18-HQ
SONG_FOLDERS = ("", "test", "musdb18hq/test")


def file_names(row: ClipRow) -> Iterator[tuple[str, bool]]:
    """Yields the names that a clip may have, and whether it is the whole video."""
    yield f"{row.video_id}.mp4", True
    rounded = (milliseconds(row.start), milliseconds(row.stop))
    cut_off = (int(row.start * 1000), int(row.stop * 1000))
    for start, stop in dict.fromkeys((cut_off, rounded)):
        yield f"{row.video_id}_{start}_{stop}.mp4", False
    yield f"{row.video_id}_{int(row.start)}_{int(row.stop)}.mp4", False
    for start, stop in dict.fromkeys((cut_off, rounded)):
        yield f"{row.video_id}.{start:08d}_{stop:08d}.mp4", False


def find_clip(media: pathlib.Path, row: ClipRow) -> tuple[pathlib.Path, bool] | None:
    """The file of a clip, in `media` or the folder there of its source, and whether it is whole."""
    for name, whole in file_names(row):
        for folder in (media / row.source, media):
            if (folder / name).is_file():
                return folder / name, whole
    return None


def expected_file(row: ClipRow) -> str:
    """What a message says of a clip that is not there."""
    names = [name for name, _ in file_names(row)]
    return f"{row.source}/{names[0]}, or already cut as {names[1]}"


def find_song(folder: pathlib.Path, row: SongRow) -> pathlib.Path | None:
    """The folder of a song in the layout of MUSDB18-HQ."""
    for place in SONG_FOLDERS:
        if (folder / place / row.song / f"{MIXTURE}.wav").is_file():
            return folder / place / row.song
    return None


def clip_files(row: ClipRow, path: pathlib.Path, with_mask: bool) -> list[Any]:
    """JSON that changes with the clip and, if it is read, with its mask in the table."""
    stamps: list[Any] = [*file_stamps(path)]
    if with_mask:
        try:
            packed = row.mask_bytes()
        except UserError:  # an error where the item is separated
            packed = None
        stamps.append(hashlib.sha256(packed or b"").hexdigest()[:16])
    return stamps


def song_files(row: SongRow, folder: pathlib.Path) -> list[Any]:
    """JSON that changes with the mixture of a song and the stem that is asked for."""
    stem = _stem_file(row, folder)
    return file_stamps(folder / f"{MIXTURE}.wav", *([stem] if stem else []))


def _stem_file(row: SongRow, folder: pathlib.Path) -> pathlib.Path | None:
    """The stem that is asked for; None where the folder has none."""
    name = row.text.strip().lower()
    stem = folder / f"{name}.wav"
    return stem if name in STEMS and stem.is_file() else None


def load_clip(
    row: ClipRow, path: pathlib.Path, whole: bool, item: ListedItem, rate: int, text: bool
) -> PromptedMixture:
    """The sound of a clip with its prompt; `text` says whether a video has the text beside it.

    Raises `UserError` for a text without words where it prompts, for spans behind the end, for a
    file that cannot be decoded or is too short, and for a mask that is missing, broken or empty.
    """
    kind = SETTINGS[item.setting].kind
    if kind != VIDEO:
        _check_words(row)
    start, seconds = row.start if whole else 0.0, row.stop - row.start
    mixture = _mono(_part(path, start, seconds), rate)
    item = item.of_length(len(mixture) / rate)
    video = None
    if kind == VIDEO:
        video = masked_video(row, path, whole, f"{row.source}/{row.id}")
    prompted = PromptedMixture(
        Recorded(item, mixture, rate),
        kind,
        True,
        row.text if kind != VIDEO or text else None,
        row.spans if kind == "text+span" else None,
        video,
    )
    check_spans(prompted)
    return prompted


def _check_words(row: ClipRow | SongRow) -> None:
    """Raises `UserError` for a text by which nothing is asked for."""
    if not has_words(row.text):
        raise UserError(f"the description of {row.id}, {row.text!r}, has no words")


def masked_video(row: ClipRow, path: pathlib.Path, whole: bool, name: str) -> Clip:
    """The picture of a clip with the masks of its object."""
    packed = row.mask_bytes()
    if packed is None:
        raise UserError(f"{name} has no mask in the table")
    masks = unpack_masks(packed, name)
    excerpt = Excerpt(path, row.start, row.stop) if whole else None
    frames = decode_frames(path, name) if excerpt is None else excerpt.frames(name)
    count = sum(1 for _ in frames)
    masked = StretchedMasks(masks, count)
    return Clip(source=excerpt or path, mask=masked, name=name)


def load_song(row: SongRow, folder: pathlib.Path, item: ListedItem, rate: int) -> PromptedMixture:
    """A part of a song, with its true stems where the folder has the one that is asked for.

    The residual is what the mixture has besides it. A stem that is silent in this part is no
    reference: nothing can be compared with it.
    """
    _check_words(row)
    seconds = row.stop - row.start
    part = _part(folder / f"{MIXTURE}.wav", row.start, seconds)
    weights = audio.mixing_weights(part.samples, part.sample_rate)
    mixture = _mono(part, rate, weights)
    item = item.of_length(len(mixture) / rate)
    recorded = Recorded(item, mixture, rate)
    stem = _stem_file(row, folder)
    if stem is not None:
        own = _part(stem, row.start, seconds)
        if (own.samples.shape, own.sample_rate) != (part.samples.shape, part.sample_rate):
            raise UserError(f"{stem} and its mixture differ in length, channels or rate")
        target = _mono(own, rate, weights)
        residual = mixture - target
        if np.any(target) and np.any(residual):
            recorded = Rendered(item, target + residual, rate, target, residual)
    return PromptedMixture(recorded, "text", True, row.text, None)


def _part(path: pathlib.Path, start: float, seconds: float) -> audio.Audio:
    """A part of a file. Raises `UserError` if the file cannot be decoded or ends too early."""
    loaded = audio.load(path)
    first, last = (round(time * loaded.sample_rate) for time in (start, start + seconds))
    samples = loaded.samples[:, first:last]
    there = samples.shape[-1] / loaded.sample_rate
    if there < SHORTEST * seconds:
        raise UserError(f"{path} has {there:.2f} s of the {seconds:g} s of the item")
    return audio.Audio(samples, loaded.sample_rate)


def _mono(
    part: audio.Audio, rate: int, weights: Float[np.ndarray, " channels"] | None = None
) -> Wave:
    """One channel at `rate`; without weights with those of any recording."""
    if weights is None:
        weights = audio.mixing_weights(part.samples, part.sample_rate)
    return audio.resample(audio.mono(part.samples, weights), part.sample_rate, rate)
