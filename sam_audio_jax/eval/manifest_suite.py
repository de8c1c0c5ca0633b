"""A separation manifest as a suite: anybody's recordings with prompts, without known stems.

The lines are those of `sam-audio separate --manifest`; what is measured is what scorers say of the
targets. Items are reported by the kind of their prompt.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.file_stamps import file_stamps
from sam_audio_jax.eval.prompting import VIDEO, PromptedMixture, check_spans
from sam_audio_jax.eval.recorded import ListedItem, Recorded
from sam_audio_jax.eval.suite import Separation, Suite, choose
from sam_audio_jax.infer.inputs import check_text
from sam_audio_jax.infer.manifest import Entry, read_manifest
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.video_prompts import make_clip


def is_manifest(bench: str) -> bool:
    """Whether the name of a bench means a manifest."""
    return bench.endswith(".jsonl")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A manifest whose lines were checked; no recording is opened."""

    name: str  # of the file
    entries: Mapping[str, Entry]  # by id
    items: tuple[ListedItem, ...]  # in the order of the lines


def open_manifest(path: str | pathlib.Path) -> Manifest:
    """Reads a manifest.

    Raises `UserError` for a bad line, and for an item without a prompt, with "-" spans, or with a
    prompt that an evaluation does not have: several texts, an example.
    """
    path = pathlib.Path(path)
    entries = read_manifest(path)
    items = tuple(_item(entry, path.name) for entry in entries)
    return Manifest(path.name, {entry.id: entry for entry in entries}, items)


def manifest_suite(manifest: Manifest, model: SAMAudio, limit: int | None = None) -> Suite:
    """The items of a manifest; a recording that cannot be used is listed in the report.

    Raises `UserError` for a video that the model cannot read.
    """
    if any(VIDEO in item.setting for item in manifest.items):
        model.pipeline.video_features.require()
    by_id = manifest.entries
    chosen = choose(list(manifest.items), limit)
    kinds = tuple(dict.fromkeys(item.setting for item in chosen))
    return Suite(
        name=manifest.name,
        identity={
            "bench": manifest.name,
            "limit": limit,
            "items": [
                [item.id, item.setting, item.caption, item.spans, by_id[item.id].track]
                for item in chosen
            ],
        },
        listed=collections.Counter(item.setting for item in chosen),
        # Lengths are not known before the recordings are decoded; any share a batch.
        separations=tuple(
            Separation(
                item.id,
                item.setting,
                item.setting,
                0,
                _loader(by_id[item.id], item, model),
                files=_files(by_id[item.id]),
            )
            for item in chosen
        ),
        kinds=kinds,
        kept=kinds,
        refines=("none",),
        may_fail=True,
    )


def _item(entry: Entry, where: str) -> ListedItem:
    """An entry, reported with those of its kind of prompt."""
    name = f"{where}: item {entry.id}"
    for what, there in (("several texts", entry.texts), ("an example (like)", entry.like)):
        if there:
            raise UserError(
                f"{name} has {what}: an evaluation is prompted by one text, spans and a video"
            )
    text = check_text(entry.text, name)
    if not (text or entry.spans or entry.video):
        raise UserError(f"{name} has no prompt: give it a text with words, spans or a video")
    if any(token != "+" for token, _, _ in entry.spans):
        raise UserError(f"{name} has a '-' span: an evaluation is prompted by '+' spans alone")
    parts = {"text": text, "span": entry.spans, VIDEO: entry.video}
    kind = "+".join(part for part, there in parts.items() if there)
    spans = tuple((start, end) for _, start, end in entry.spans)
    return ListedItem(entry.id, kind, text, spans, 0.0)


def _files(entry: Entry) -> tuple[Any, ...]:
    """What an entry reads, each by its role."""
    named = {"audio": entry.audio, VIDEO: entry.video, "mask": entry.mask}
    return tuple([role, *file_stamps(path)] for role, path in named.items() if path)


def _loader(entry: Entry, item: ListedItem, model: SAMAudio) -> Callable[[], PromptedMixture]:
    return functools.partial(_load, entry, item, model.sample_rate)


def _load(entry: Entry, item: ListedItem, rate: int) -> PromptedMixture:
    """Decodes the recording of an entry, one channel at `rate`."""
    loaded = audio.load(entry.audio, entry.track)
    weights = audio.mixing_weights(loaded.samples, loaded.sample_rate)
    mono = audio.mono(loaded.samples, weights)
    mixture = audio.resample(mono, loaded.sample_rate, rate)
    prompted = PromptedMixture(
        Recorded(item.of_length(len(mixture) / rate), mixture, rate),
        item.setting,
        True,
        item.caption or None,
        item.spans or None,
        make_clip(entry.video, entry.mask, name=item.id, sound=entry.audio, track=entry.track),
    )
    check_spans(prompted)
    return prompted
