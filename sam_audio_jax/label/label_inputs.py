"""The manifest of a labelling run: a recording a line, with the caption of the sound to label.

Both kinds of manifest are read: that of a training (docs/data.md, "Manifest") and that of
`sam-audio separate`. Every line is an input and gets exactly one result, a bad line too.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from sam_audio_jax.data.phrases import noun_verb_phrase
from sam_audio_jax.encoders.text_form import normalize
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import iter_lines, sha256_of
from sam_audio_jax.infer.inputs import check_path, check_text, check_track, parse_spans
from sam_audio_jax.separator.prompts import Span

PATHS = ("audio", "video", "mask", "true_target")
CATEGORY = "labelled"  # where the manifest has none


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelInput:
    """One line of the manifest."""

    id: str
    number: int  # of the line, from 1
    audio: pathlib.Path | None = None
    texts: tuple[str, ...] = ()  # the caption and other words for the same sound, as models read
    spans: tuple[Span, ...] = ()
    track: int | None = None
    channel: int | None = None  # from 1; None: all, mixed down
    video: pathlib.Path | None = None
    mask: pathlib.Path | None = None
    category: str = CATEGORY
    true_target: pathlib.Path | None = None  # measured against, never read to make the label
    reason: str = ""  # why there can be no label

    @property
    def caption(self) -> str:
        """The text of its prompt; "" if there is none."""
        return self.texts[0] if self.texts else ""

    @functools.cached_property
    def recording(self) -> str:
        """The file that it is of, in one spelling: several lines of one have several sounds of it.

        Links are followed; a copy is another recording.
        """
        return "" if self.audio is None else os.path.realpath(self.audio)


@dataclasses.dataclass(frozen=True)
class LabelManifest:
    """All inputs, and a hash of the file by which another one is recognised."""

    inputs: Sequence[LabelInput]
    digest: str

    @property
    def captions(self) -> list[str]:
        """The different captions, in the order of their first lines."""
        return list(dict.fromkeys(one.caption for one in self.inputs if one.caption))


def read_inputs(path: pathlib.Path, *, phrases: bool = False) -> LabelManifest:
    """Reads every line; one that is malformed, or has the id of another, is an input with a reason.

    With `phrases` captions that are sentences become noun-verb phrases. Raises UserError for a file
    that is missing or has no good line.
    """
    inputs, line_of = [], {}
    for number, fields in iter_lines(path):
        where = f"{path.name} line {number}"
        try:
            if isinstance(fields, UserError):
                raise fields
            one = _parse(fields, number, where, path.parent)
            if phrases:
                texts = dict.fromkeys(map(noun_verb_phrase, one.texts))
                one = dataclasses.replace(one, texts=tuple(texts))
            if one.id in line_of:
                raise UserError(f"{where}: id {shown(one.id)} is that of line {line_of[one.id]}")
            line_of[one.id] = number
        except UserError as error:
            one = LabelInput(id=f"line {number}", number=number, reason=str(error))
        inputs.append(one)
    if not line_of:
        raise UserError(inputs[0].reason if inputs else f"manifest {path} is empty")
    return LabelManifest(inputs, sha256_of(path))


def _parse(fields: Any, number: int, where: str, folder: pathlib.Path) -> LabelInput:
    if not isinstance(fields, dict):
        raise UserError(f"{where} must be an object like {{'path': 'a.wav', 'caption': 'dog'}}")
    fields = fields | {"audio": _either(fields, "audio", "path", where)}
    for key in PATHS:
        value = fields.get(key)
        if value is None and key != "audio":
            continue
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {key} must be a string, not {shown(value)}")
        check_path(value, f"{where}: {key}")
    if fields.get("mask") and not fields.get("video"):
        raise UserError(f"{where} has a mask but no video that it is of")
    others = fields.get("alt_captions") or []
    if not isinstance(others, list):
        raise UserError(f"{where}: alt_captions must be a list, not {shown(others)}")
    captions = [_either(fields, "caption", "text", where), *others]
    texts = [normalize(check_text(text, where)) for text in captions]
    track = fields.get("track")
    if track is not None:
        check_track(track, where)
    channel = fields.get("channel")
    if channel is not None and (type(channel) is not int or channel < 1):
        raise UserError(f"{where}: channel must be a whole number from 1, not {shown(channel)}")
    if fields.get("record") is not None:
        raise UserError(f"{where} has a record, of shards, which are not labelled: name files")
    name, category = fields.get("id", fields["audio"]), fields.get("category", CATEGORY)
    for key, value in (("id", name), ("category", category)):
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {key} must be a string, not {shown(value)}")
    paths = {key: folder / fields[key] if fields.get(key) else None for key in PATHS}
    return LabelInput(
        id=name,
        number=number,
        texts=tuple(dict.fromkeys(filter(None, texts))),
        spans=_spans(fields.get("spans") or (), where),
        track=track,
        channel=channel,
        category=category,
        audio=paths["audio"],
        video=paths["video"],
        mask=paths["mask"],
        true_target=paths["true_target"],
    )


def _either(fields: dict[str, Any], one: str, other: str, where: str) -> Any:
    """The value of a field that the two kinds of manifest call differently."""
    if fields.get(one) and fields.get(other):
        raise UserError(f"{where} has both {one} and {other}: leave one")
    return fields.get(one) or fields.get(other)


def _spans(spans: Any, where: str) -> tuple[Span, ...]:
    """Spans with their tokens, or, as in a training manifest, without: all of them sound."""
    pairs = isinstance(spans, list) and all(isinstance(s, list) and len(s) == 2 for s in spans)
    return parse_spans([["+", *span] for span in spans] if pairs else spans, where)
