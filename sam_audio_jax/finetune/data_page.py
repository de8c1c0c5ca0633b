"""What was found in own recordings, as one HTML page and as lines for a terminal."""

import collections
import html
from collections.abc import Iterable, Sequence

from sam_audio_jax.eval import page
from sam_audio_jax.finetune.own_recordings import OwnRecordings, OwnSound, Problem
from sam_audio_jax.finetune.split_sources import HELD_OUT

LAYOUTS = {
    "classes": "one folder for each class; its name is the prompt",
    "songs": "one folder for each song; the names of its files are the prompts",
    "manifest": "a manifest; its captions are the prompts",
}
MOST_LISTED = 1_000  # files that the page lists
MOST_NAMED = 10  # problems that the terminal names


def lines(own: OwnRecordings) -> list[str]:
    """A few lines for a terminal."""
    minutes = sum(sound.seconds for sound in own.sounds) / 60
    head = f"{own.path}: {LAYOUTS[own.layout]}"
    text = [head, f"  {len(own.sounds)} recordings, {minutes:.1f} min; {_kinds(own.sounds)}"]
    for caption, sounds in own.by_caption().items():
        held = [sound for sound in sounds if sound.recording.split == HELD_OUT]
        seconds = sum(sound.seconds for sound in sounds)
        count = f"{len(sounds):>5} of {_time(seconds)}, {len(held)} held out"
        text.append(f"  {caption:<24} {count}")
    if own.others:
        text.append(f"  {own.others} files are no sound")
    for kind, found in (("left out", own.problems), ("note", own.notes)):
        named = [f"  {kind}: {one.what}: {one.reason}" for one in found]
        text += named[:MOST_NAMED]
        if len(named) > MOST_NAMED:
            text.append(f"  and {len(named) - MOST_NAMED} more, which the page lists")
    return text


def data_page(own: OwnRecordings) -> str:
    """The page, which needs no other file."""
    seconds = sum(sound.seconds for sound in own.sounds)
    held = [sound for sound in own.sounds if sound.recording.split == HELD_OUT]
    captions = own.by_caption()
    tiles = (
        (f"{len(own.sounds)}", "recordings"),
        (_time(seconds), "of sound"),
        (f"{len(captions)}", "stems" if own.layout == "songs" else "prompts"),
        (f"{len(held)}", f"held out, {_time(sum((sound.seconds for sound in held), 0.0))}"),
        (f"{len(own.problems)}", "left out"),
    )
    body = [
        f"<h1>{html.escape(own.path.name or str(own.path))}</h1>",
        f'<p class="soft">{html.escape(LAYOUTS[own.layout])}. {html.escape(_kinds(own.sounds))}.',
        f" {own.others} other files.</p>" if own.others else "</p>",
        '<div class="tiles">',
        *(f'<div class="tile"><b>{number}</b>{html.escape(what)}</div>' for number, what in tiles),
        "</div><h2>Prompts</h2>",
        _prompts(captions),
    ]
    if own.songs:
        body += ["<h2>Songs</h2>", _songs(own)]
    for title, found in (("Left out", own.problems), ("Notes", own.notes)):
        if found:
            body += [f"<h2>{title}</h2>", _problems(found)]
    body += ["<h2>Recordings</h2>", _files(own.sounds)]
    return page.document(f"Data: {own.path.name}", "".join(body))


def _prompts(captions: dict[str, list[OwnSound]]) -> str:
    rows = []
    for caption, sounds in captions.items():
        lengths = [sound.seconds for sound in sounds]
        levels = [sound.level_db for sound in sounds]
        held = sum(sound.recording.split == HELD_OUT for sound in sounds)
        rows.append(
            (
                html.escape(caption),
                str(len(sounds)),
                str(held),
                _time(sum(lengths)),
                f"{min(lengths):.1f} to {max(lengths):.1f} s",
                f"{min(levels):.0f} to {max(levels):.0f} dBFS",
            )
        )
    heads = ("prompt", "recordings", "held out", "in all", "length", "level")
    return page.cells_table(heads, rows)


def _songs(own: OwnRecordings) -> str:
    rows = [
        (html.escape(song.name), str(len(song.stems)), "yes" if song.split == HELD_OUT else "")
        for song in own.songs
    ]
    return page.cells_table(("song", "stems", "held out"), rows)


def _problems(found: Sequence[Problem]) -> str:
    return page.cells_table(
        ("what", "why"), [(html.escape(one.what), html.escape(one.reason)) for one in found]
    )


def _files(sounds: Sequence[OwnSound]) -> str:
    rows = [
        (
            html.escape(sound.recording.id),
            html.escape(sound.recording.caption),
            f"{sound.seconds:.1f} s",
            f"{sound.sample_rate} Hz",
            str(sound.channels),
            f"{sound.level_db:.0f} dBFS",
            "yes" if sound.recording.split == HELD_OUT else "",
        )
        for sound in sounds[:MOST_LISTED]
    ]
    heads = ("file", "prompt", "length", "rate", "channels", "level", "held out")
    more = len(sounds) - len(rows)
    return page.cells_table(heads, rows) + (f"<p>and {more} more</p>" if more else "")


def _kinds(sounds: Iterable[OwnSound]) -> str:
    """The rates and numbers of channels, the most frequent first."""
    sounds = list(sounds)
    rates = collections.Counter(f"{sound.sample_rate} Hz" for sound in sounds)
    channels = collections.Counter(_channels(sound.channels) for sound in sounds)
    return ", ".join(f"{count} {what}" for what, count in (rates + channels).most_common())


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"of {count} channels")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
