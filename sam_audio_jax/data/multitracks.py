"""Folders of multitrack music as MUSDB18 has them: every instrument in turn can be the target.

`ROOT/train/PIECE/drums.wav`, and so on: one file for each instrument (MUSDB18-HQ, and any other
set; a file is named after its instrument), or `ROOT/train/PIECE.stem.mp4`, one audio track for
each. The mixture is not read: it is the sum of the stems. One instrument in two files of a piece, a
piece in both forms, and a folder without stems are refused, each by name.
"""

import pathlib
from collections.abc import Iterator

from sam_audio_jax import audio
from sam_audio_jax.data.recording import Recording, Song
from sam_audio_jax.data.text import UNNAMED
from sam_audio_jax.errors import UnusableError, UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
MIXTURES = ("mixture", "mix", "master")  # not read: the sum of the stems is
STEM_MP4 = ".stem.mp4"
TRACKS = ("drums", "bass", UNNAMED, "vocals")  # of a .stem.mp4, after its mixture
# File -> what it is called by people; others are called by their name, "_" being a space.
CAPTIONS = {
    "vocals": ("singing", "vocals"),
    "bass": ("bass guitar playing", "bass guitar"),
}


def iter_multitracks(root: str, split: str) -> Iterator[Recording | Song | UnusableError]:
    """Yields the stems of each piece of a split, and then the piece.

    Without a folder of the split all of `root` is "train". A piece with a bad stem has the others.
    Raises `UserError` if there is no such folder.
    """
    folder = pathlib.Path(root) / split
    if not folder.is_dir():
        if split != "train" or not pathlib.Path(root).is_dir():
            raise UserError(f"no multitrack pieces in {folder}")
        folder = pathlib.Path(root)
    pieces: dict[str, pathlib.Path] = {}  # name -> folder or file
    for piece in sorted(folder.iterdir()):
        if piece.name.startswith("."):
            continue
        found = _stems(piece)
        if not found and piece.is_dir():
            yield UnusableError(f"{piece} has no stems {', '.join(SUFFIXES)}", "no stems")
        name = piece.name.removesuffix(STEM_MP4)
        if found and (first := pieces.setdefault(name, piece)) != piece:
            yield UnusableError(f"{piece} is the piece {first} again", "piece twice")
            continue
        stems: dict[str, Recording] = {}
        for name, path, track in found:
            try:
                recording = _recording(piece, name, path, track, split)
                if first := stems.get(recording.stem or ""):
                    text = f"{path} is the stem {recording.stem!r} again, beside {first.path}"
                    raise UnusableError(text, "stem twice")
            except UnusableError as error:
                yield error
                continue
            stems[recording.stem or ""] = recording
            yield recording
        if stems:
            yield Song(str(piece), split, tuple(one.id for one in stems.values()))


def _stems(piece: pathlib.Path) -> list[tuple[str, pathlib.Path, int | None]]:
    """(instrument, file, audio track) of each stem of a piece."""
    if piece.name.endswith(STEM_MP4):
        return [(name, piece, number) for number, name in enumerate(TRACKS, 2)]
    if not piece.is_dir():
        return []
    files = [path for path in sorted(piece.iterdir()) if path.suffix.lower() in SUFFIXES]
    return [(path.stem, path, None) for path in files if path.stem.lower() not in MIXTURES]


def _recording(
    piece: pathlib.Path, name: str, path: pathlib.Path, track: int | None, split: str
) -> Recording:
    stem = name.lower().replace("_", " ")
    caption, *others = CAPTIONS.get(stem, (f"{stem} playing",))
    return Recording(
        id=f"{path}#{stem}",
        path=str(path),
        caption=caption,
        alt_captions=tuple(others),
        category="music",
        source_id=str(piece),
        duration=audio.sound_seconds(path, track),
        license="unknown",
        split=split,
        track=track,
        song=str(piece),
        stem=stem,
    )
