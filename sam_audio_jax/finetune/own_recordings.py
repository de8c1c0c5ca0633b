"""What is in a folder of own recordings, and what is wrong with it (docs/finetuning.md, "Folder").

Three layouts: one folder for each class, whose name is the prompt; one folder for each song with
one file for each stem, whose names are the prompts; a manifest of recordings (docs/data.md,
"Manifest"). Every file is decoded, so that nothing is found out in the middle of a training.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.data import energy
from sam_audio_jax.data.multitracks import MIXTURES
from sam_audio_jax.data.recording import Recording, Song
from sam_audio_jax.data.source import iter_manifest, load_songs
from sam_audio_jax.data.waves import check_sounding, chosen_channel
from sam_audio_jax.encoders.text_form import has_words, normalize
from sam_audio_jax.errors import UnusableError, UserError, shown
from sam_audio_jax.files import sha256_of
from sam_audio_jax.progress_bar import progress_bar

FolderLayout = Literal["classes", "songs", "manifest"]

SOUNDS = frozenset(
    (
        *(
            ".wav",
            ".wave",
            ".flac",
            ".ogg",
            ".oga",
            ".opus",
            ".mp3",
            ".m4a",
            ".aac",
            ".aif",
            ".w64",
        ),
        *(".aiff", ".aifc", ".caf", ".au", ".wma", ".wv", ".mka", ".mp4", ".mkv", ".mov", ".webm"),
    )
)
LEAST_S = energy.MIN_S  # shorter recordings are skipped
ALIGNED_S = 0.1  # by which the stems of one song may differ in length without a note
FINETUNED = frozenset(("data.html", "train.json"))  # in every folder that `finetune` has laid out
# A name of a stem has a letter and no number: recordings of a class are often numbered alike.
STEM_NAME = re.compile(r"[^\W\d_][^\d]*")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A file, or a line of a manifest, that is left out, and why; or a note on one that is not."""

    what: str
    reason: str


@dataclasses.dataclass(frozen=True)
class OwnSound:
    """A recording that can be used, and what was measured of it."""

    recording: Recording
    sample_rate: int
    channels: int
    level_db: float  # RMS where it sounds, dB of full scale
    digest: str  # of the bytes of its file

    @property
    def seconds(self) -> float:
        return self.recording.duration


@dataclasses.dataclass(frozen=True)
class OwnRecordings:
    """All that was found."""

    path: pathlib.Path
    layout: FolderLayout
    sounds: Sequence[OwnSound]
    songs: Sequence[Song]
    problems: Sequence[Problem]  # left out
    notes: Sequence[Problem]  # kept
    others: int  # files that are no sound

    def by_caption(self) -> dict[str, list[OwnSound]]:
        """The sounds of each class or stem, by its prompt."""
        groups: dict[str, list[OwnSound]] = collections.defaultdict(list)
        for sound in self.sounds:
            groups[sound.recording.caption].append(sound)
        return dict(sorted(groups.items()))


def look(path: str | pathlib.Path, layout: FolderLayout | None = None) -> OwnRecordings:
    """Decodes everything at `path`; without a `layout` it is taken from the names.

    Raises `UserError` where there is nothing to use.
    """
    path = pathlib.Path(path)
    problems: list[Problem] = []
    others = 0
    if path.is_file():
        if path.suffix != ".jsonl" or layout not in (None, "manifest"):
            raise UserError(f"{path} must be a folder, or a manifest FILE.jsonl")
        layout = "manifest"
        listed, songs = _from_manifest(path, problems)
    elif path.is_dir():
        if layout == "manifest":
            raise UserError(f"{path} is a folder: a manifest is a file, MANIFEST.jsonl")
        folders, others = _folders(path, problems)
        layout = layout or _guessed(folders)
        listed = list((_of_songs if layout == "songs" else _of_classes)(path, folders))
        songs = []
    else:
        raise UserError(f"no folder or manifest {path}")
    sounds, notes = [], []
    for recording in progress_bar(listed, desc="looking", unit="file", disable=len(listed) < 50):
        found = measured(recording)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            sounds.append(found)
            notes += _notes(found)
    sounds = _in_one_spelling(sounds, notes)
    if layout == "songs":
        songs = _songs(sounds, problems, notes)
        used = {name for song in songs for name in song.stems}
        sounds = [sound for sound in sounds if sound.recording.id in used]
    if not sounds:
        first = f"; {problems[0].what}: {problems[0].reason}" if problems else ""
        raise UserError(
            f"{path} has no recording that can be used: {len(problems)} left out, {others} other "
            f"files{first}"
        )
    return OwnRecordings(path, layout, sounds, songs, problems, notes, others)


def measured(recording: Recording) -> OwnSound | Problem:
    """The sound of a recording, whose length is as decoded; or why it cannot be used."""
    path = pathlib.Path(recording.path)
    if recording.record is not None:
        return Problem(recording.id, "is a record of shards: name sound files")
    try:
        found = audio.load(path, recording.track)
        samples = chosen_channel(found.samples, recording)
        digest = sha256_of(path)
    except (UserError, OSError) as error:
        return Problem(recording.id, str(error).removeprefix(f"{path} ").strip())
    wave = audio.mono(samples, audio.mixing_weights(samples, found.sample_rate))
    seconds = len(wave) / found.sample_rate
    if seconds < LEAST_S:
        return Problem(
            recording.id, f"too short: {seconds:.2f} s, {LEAST_S:g} s or more are needed"
        )
    try:
        check_sounding(wave, found.sample_rate)
    except UnusableError as error:
        return Problem(recording.id, str(error))
    level = energy.active_rms(wave, found.sample_rate)
    return OwnSound(
        recording=dataclasses.replace(recording, duration=seconds),
        sample_rate=found.sample_rate,
        channels=found.samples.shape[0],
        level_db=round(20 * float(np.log10(max(level, 1e-6))), 1),
        digest=f"{digest}:{recording.track}:{recording.channel}",
    )


def _notes(sound: OwnSound) -> Iterator[Problem]:
    """What is odd about a sound that is used all the same."""
    if sound.sample_rate < 8_000:
        yield Problem(sound.recording.id, f"only {sound.sample_rate} Hz")
    if sound.level_db < -50:
        yield Problem(sound.recording.id, f"very quiet: {sound.level_db:g} dBFS where it sounds")


def _from_manifest(
    path: pathlib.Path, problems: list[Problem]
) -> tuple[list[Recording], list[Song]]:
    recordings, songs = [], []
    for one in iter_manifest(path):
        if isinstance(one, UnusableError):
            where, _, reason = str(one).partition(": ")
            problems.append(Problem(where, reason or where))
        else:
            (songs if isinstance(one, Song) else recordings).append(one)
    splits = {recording.split for recording in recordings}
    return recordings, songs + [song for split in splits for song in load_songs([str(path)], split)]


def _folders(
    root: pathlib.Path, problems: list[Problem]
) -> tuple[dict[str, list[pathlib.Path]], int]:
    """The sound files of each folder below `root`, at any depth; and how many files are none."""
    folders: dict[str, list[pathlib.Path]] = {}
    others = 0
    for found in sorted(_files(root, problems)):
        inside = found.relative_to(root)
        name = str(inside)
        if found.suffix.lower() not in SOUNDS:
            others += 1
        elif _in_utf8(path := str(found.resolve())) != path or _in_utf8(name) != name:
            problems.append(Problem(_in_utf8(name), "has a path that is not UTF-8: rename it"))
        elif not found.is_file():
            problems.append(Problem(name, "is no file, or a link to none"))
        elif len(inside.parts) == 1:
            problems.append(Problem(name, "is in no folder, whose name would be its prompt"))
        else:
            folders.setdefault(inside.parts[0], []).append(found)
    return folders, others


def _in_utf8(name: str) -> str:
    """A path as text that can be written: bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _files(root: pathlib.Path, problems: list[Problem]) -> Iterator[pathlib.Path]:
    """What is no folder below `root`, also below links, without hidden names.

    A folder that is met again, as by a link to one above it, and one that `finetune` wrote, whose
    clips are sounds that it has held out, are problems.
    """

    def unread(error: OSError) -> None:
        name = _in_utf8(os.path.relpath(error.filename, root))
        problems.append(Problem(name, error.strerror or "unread"))

    name_of: dict[str, str] = {}  # of each folder, by its real path
    for folder, below, files in os.walk(root, onerror=unread, followlinks=True):
        name = os.path.relpath(folder, root)
        first = name_of.setdefault(os.path.realpath(folder), name)
        reason = "is the folder of a fine-tuning" if FINETUNED.issubset(files) else ""
        reason = f"is the folder {shown(first)} again" if first != name else reason
        if reason:
            problems.append(Problem(_in_utf8(name), reason))
            below.clear()
            continue
        # Links come last, so that a folder has its own name before that of a link to it.
        below[:] = [one for one in below if not one.startswith(".")]
        below.sort(key=lambda one: (os.path.islink(os.path.join(folder, one)), one))
        yield from (pathlib.Path(folder, one) for one in files if not one.startswith("."))


def _guessed(folders: dict[str, list[pathlib.Path]]) -> FolderLayout:
    """Songs where two names of stems are in half of the folders and in two at least."""
    names = collections.Counter(
        name for paths in folders.values() for name in {path.stem.lower() for path in paths}
    )
    stems = [
        name
        for name, count in names.items()
        if STEM_NAME.fullmatch(name) and count >= 2 and 2 * count >= len(folders)
    ]
    return "songs" if len(stems) >= 2 else "classes"


def _prompt(name: str) -> str:
    """A name of a file or folder as words."""
    return " ".join(name.replace("_", " ").split())


def _of_classes(root: pathlib.Path, folders: dict[str, list[pathlib.Path]]) -> Iterator[Recording]:
    for name, paths in folders.items():
        _check_prompt(name)
        for path in paths:
            inside = path.relative_to(root).as_posix()
            yield _recording(path, inside, _prompt(name), "sfx", source=inside)


def _of_songs(root: pathlib.Path, folders: dict[str, list[pathlib.Path]]) -> Iterator[Recording]:
    for song, paths in folders.items():
        for path in paths:
            if path.stem.lower() in MIXTURES:  # the sum of the others
                continue
            _check_prompt(path.stem)
            stem = _prompt(path.stem)
            inside = path.relative_to(root).as_posix()
            yield dataclasses.replace(
                _recording(path, inside, stem, "music", source=song), song=song, stem=stem.lower()
            )


def _check_prompt(name: str) -> None:
    if not has_words(_prompt(name)):
        raise UserError(f"{shown(name)} is no prompt: name folders of classes, and stems, by words")


def _recording(
    path: pathlib.Path, name: str, caption: str, category: str, *, source: str
) -> Recording:
    return Recording(
        id=name,
        path=str(path.resolve()),
        caption=caption,
        category=category,
        source_id=source,
        duration=1.0,  # until it is measured
        license="own",
    )


def _in_one_spelling(sounds: Sequence[OwnSound], notes: list[Problem]) -> list[OwnSound]:
    """The sounds, with the first spelling of each prompt for all that a model reads as the same."""
    first: dict[str, str] = {}
    found, noted = [], set()
    for sound in sounds:
        recording = sound.recording
        caption = first.setdefault(normalize(recording.caption), recording.caption)
        if caption != recording.caption and recording.caption not in noted:
            noted.add(recording.caption)
            notes.append(Problem(recording.caption, f"is the same prompt as {shown(caption)}"))
        recording = dataclasses.replace(recording, caption=caption)
        found.append(dataclasses.replace(sound, recording=recording))
    return found


def _songs(sounds: Sequence[OwnSound], problems: list[Problem], notes: list[Problem]) -> list[Song]:
    """The songs that have two stems or more; what else was in their folders is a problem."""
    by_song: dict[str, list[OwnSound]] = collections.defaultdict(list)
    for sound in sounds:
        by_song[sound.recording.song or ""].append(sound)
    songs = []
    for name, found in by_song.items():
        stems: dict[
            str, OwnSound
        ] = {}  # by prompt: a stem given twice would be in its own residual
        for stem in found:
            first = stems.setdefault(stem.recording.caption, stem)
            if first is not stem:
                reason = f"is the stem that {first.recording.id} is already"
                problems.append(Problem(stem.recording.id, reason))
        if len(stems) < 2:
            problems.append(Problem(found[0].recording.id, "is the only stem of its song"))
            continue
        lengths = [stem.seconds for stem in stems.values()]
        if max(lengths) - min(lengths) > ALIGNED_S:
            text = f"stems of {min(lengths):.1f} to {max(lengths):.1f} s: used up to the shortest"
            notes.append(Problem(name, f"{text}, as if all began together"))
        songs.append(Song(name, "train", tuple(stem.recording.id for stem in stems.values())))
    return songs
