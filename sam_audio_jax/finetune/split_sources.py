"""Which own recordings are held out: whole sources, always the same ones.

Two recordings are of one source if their manifest, or their song, says so, or if their files are
equal byte for byte. A source is held out by the hash of its name, so that a folder that grows keeps
what was held out before.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.finetune.own_recordings import OwnRecordings, OwnSound, Problem

SHARE = 0.2  # of the sources of each prompt that are held out; one at least, if there are two
TRAIN, HELD_OUT = "train", "valid"  # names of the splits, as manifests have them
SPLITS = (TRAIN, HELD_OUT)


def split(own: OwnRecordings) -> OwnRecordings:
    """The recordings with their split, by source.

    A manifest that has lines of the split `valid` says itself what is held out; those of any split
    but `train` and `valid` are left out, with all of their sources. Raises `UserError` where either
    part cannot make a mixture.
    """
    source_of = _sources(own.sounds)
    own = _of_known_splits(own, source_of)
    listed = {sound.recording.split for sound in own.sounds}
    problems = list(own.problems)
    if HELD_OUT in listed:
        held = {source_of[s.recording.id] for s in own.sounds if s.recording.split == HELD_OUT}
    else:
        held = _chosen(own.sounds, source_of)
    sounds = []
    for sound in own.sounds:
        is_held = source_of[sound.recording.id] in held
        if HELD_OUT in listed and is_held and sound.recording.split != HELD_OUT:
            problems.append(Problem(sound.recording.id, "its source is held out in other lines"))
            continue
        recording = dataclasses.replace(
            sound.recording,
            split=HELD_OUT if is_held else TRAIN,
            # A source is never mixed with itself.
            source_id=source_of[sound.recording.id].removeprefix("source "),
        )
        sounds.append(dataclasses.replace(sound, recording=recording))
    split_of = {sound.recording.id: sound.recording.split for sound in sounds}
    songs = []
    for song in own.songs:
        stems = tuple(stem for stem in song.stems if stem in split_of)
        if len(stems) > 1:
            parts = {split_of[stem] for stem in stems}
            part = HELD_OUT if HELD_OUT in parts else TRAIN
            stems = tuple(stem for stem in stems if split_of[stem] == part)
            songs.append(dataclasses.replace(song, split=part, stems=stems))
    found = dataclasses.replace(own, sounds=sounds, songs=songs, problems=problems)
    _check(found)
    return found


def _of_known_splits(own: OwnRecordings, source_of: Mapping[str, str]) -> OwnRecordings:
    """What is for training or held out; a manifest's other splits, as `test`, are for neither."""
    apart = {source_of[s.recording.id] for s in own.sounds if s.recording.split not in SPLITS}
    sounds, problems = [], list(own.problems)
    for sound in own.sounds:
        name, split = sound.recording.id, sound.recording.split
        if split not in SPLITS:
            problems.append(Problem(name, f"its split {shown(split)} is neither train nor valid"))
        elif source_of[name] in apart:
            problems.append(Problem(name, "its source is of another split in other lines"))
        else:
            sounds.append(sound)
    if not sounds:
        raise UserError(f"{own.path} has no line of the split train or valid that can be used")
    songs = [song for song in own.songs if song.split in SPLITS]
    return dataclasses.replace(own, sounds=sounds, songs=songs, problems=problems)


def part_of(own: OwnRecordings, name: str) -> list[OwnSound]:
    """The sounds of one split."""
    return [sound for sound in own.sounds if sound.recording.split == name]


def loose(sounds: Sequence[OwnSound]) -> dict[str, list[OwnSound]]:
    """The sounds that are no stem of a song, by their prompt."""
    groups: dict[str, list[OwnSound]] = collections.defaultdict(list)
    for sound in sounds:
        if not sound.recording.song:
            groups[sound.recording.caption].append(sound)
    return dict(groups)


def _sources(sounds: Sequence[OwnSound]) -> dict[str, str]:
    """The source of each recording, by its id: the first name of all that are one."""
    above: dict[str, str] = {}

    def root(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    first_of: dict[str, str] = {}
    for sound in sounds:
        source = root(f"source {sound.recording.source_id}")
        other = root(first_of.setdefault(sound.digest, source))
        low, high = sorted((source, other))
        above[high] = low
    return {s.recording.id: root(f"source {s.recording.source_id}") for s in sounds}


def _chosen(sounds: Sequence[OwnSound], source_of: Mapping[str, str]) -> set[str]:
    """Of each prompt a share of its sources, but never all of them."""
    groups: dict[str, set[str]] = collections.defaultdict(set)
    for sound in sounds:
        groups[sound.recording.caption].add(source_of[sound.recording.id])
    held: set[str] = set()

    def may_go(source: str) -> bool:
        return all(group - held - {source} for group in groups.values() if source in group)

    for caption in sorted(groups):
        group = groups[caption]
        wanted = max(1, round(SHARE * len(group))) if len(group) > 1 else 0
        for source in sorted(group - held, key=drawn_by):
            if len(group & held) >= wanted:
                break
            if may_go(source):
                held.add(source)
    return held


def drawn_by(name: str) -> bytes:
    """The key by which sources are drawn: the same for a name, and as if at random."""
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _check(own: OwnRecordings) -> None:
    """Raises `UserError` unless both parts can make mixtures."""
    kinds = {sound.recording.caption for sound in own.sounds}
    in_songs = {song.split for song in own.songs}
    for part in (TRAIN, HELD_OUT):
        groups = loose(part_of(own, part))
        sources = {sound.recording.source_id for group in groups.values() for sound in group}
        if part in in_songs or min(len(groups), len(sources)) > 1:
            continue
        if own.songs:
            raise UserError(
                f"{own.path} has {len(own.songs)} song: two or more are needed, one is held out"
            )
        if len(kinds) < 2:
            raise UserError(
                f"{own.path} has recordings of {', '.join(kinds)!r} alone, and nothing to separate "
                "it from: add a folder of other sounds"
            )
        raise UserError(
            f"{own.path}: two of its classes need two recordings or more, of which one is held "
            f"out, and equal files are one recording; it has {_counts(own)}"
        )


def _counts(own: OwnRecordings) -> str:
    return ", ".join(f"{len(sounds)} of {name}" for name, sounds in own.by_caption().items())
