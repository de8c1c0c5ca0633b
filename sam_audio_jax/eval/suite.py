"""What an evaluation separates: a list of separations, each read when its turn comes.

A list of fixed mixtures (docs/data.md, "Fixed mixtures") and the released benchmark
(docs/benchmark.md) are both a `Suite`, so that one evaluation measures either.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.file_stamps import sha256_now
from sam_audio_jax.eval.mixtures import FixedMixture, load_bench, render
from sam_audio_jax.eval.prompting import EXAMPLES, PROMPTS, PromptedMixture, prompted_mixtures
from sam_audio_jax.eval.recorded import Rendered

REFINES = ("none", "wiener")


@dataclasses.dataclass(frozen=True)
class Separation:
    """One separation to make.

    `load` reads its recording; it raises `UserError` for one that cannot be used.
    """

    id: str
    setting: str
    kind: str  # of prompt
    length: int  # samples at the model's rate; a damaged recording may have fewer
    load: Callable[[], PromptedMixture]
    right: bool = True  # as in `PromptedMixture`
    files: tuple[Any, ...] = ()  # JSON that changes with what `load` reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """An item that is in a list and in no number, and why."""

    id: str
    setting: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """What is separated, and what the report says of it besides the scores."""

    name: str
    # JSON; with the model, the solver and the files of the separations it determines all scores.
    identity: Mapping[str, Any]
    listed: Mapping[str, int]  # items of each setting, in the order of the report
    separations: tuple[Separation, ...]
    kinds: tuple[str, ...]  # of prompts; the first is what the report begins with
    kept: tuple[str, ...]  # kinds whose stems may be listened to
    refines: tuple[str, ...] = REFINES  # what is scored: stems as generated, as refined
    rendered: tuple[Rendered[FixedMixture], ...] = ()  # all of it, where baselines are possible
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # id -> part of its setting
    alike: tuple[str, ...] = ()  # ids of mixtures whose two sources share their spans
    missing: tuple[Failure, ...] = ()  # items without a recording
    not_run: Mapping[str, str] = dataclasses.field(default_factory=dict)  # setting -> why
    # Setting -> system -> column -> published number.
    published: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(
        default_factory=dict
    )
    remarks: tuple[str, ...] = ()  # sentences of the report
    may_fail: bool = False  # whether an item that cannot be separated is listed, or ends the call


@runtime_checkable
class HasSetting(Protocol):
    """Anything that belongs to a setting."""

    @property
    def setting(self) -> str: ...


S = TypeVar("S", bound=HasSetting)


def choose(items: Sequence[S], limit: int | None) -> list[S]:
    """The first `limit` items, alternating between the settings; all without a limit.

    Raises `UserError` for a limit below 1.
    """
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise UserError(f"limit {limit} must be at least 1")
    seen: collections.Counter[str] = collections.Counter()
    order = []
    for index, item in enumerate(items):
        order.append((seen[item.setting], index))
        seen[item.setting] += 1
    chosen = sorted(index for _, index in sorted(order)[:limit])
    return [items[index] for index in chosen]


def fixed_suite(
    bench: str | pathlib.Path,
    sample_rate: int,
    prompts: Sequence[str] = PROMPTS,
    limit: int | None = None,
) -> Suite:
    """A list of fixed mixtures, rendered at a model's rate.

    `bench` is "embedded" or a folder. Raises `UserError` for a bad one or an unknown kind of
    prompt.
    """
    listing = load_bench(bench)
    rendered = [
        render(listing, item).resampled(sample_rate) for item in choose(listing.mixtures, limit)
    ]
    prompted, alike = prompted_mixtures(rendered, prompts)
    items = [one.item for one in rendered]
    examples = bool(set(prompts) & set(EXAMPLES))
    return Suite(
        name=listing.name,
        identity={
            "bench": listing.name,
            "prompts": list(prompts),
            "limit": limit,
            "items": [[one.item.id, _digest(one, examples)] for one in rendered],
        },
        listed=collections.Counter(item.setting for item in items),
        separations=tuple(map(_in_memory, prompted)),
        kinds=tuple(prompts),
        kept=(prompts[0],),
        rendered=tuple(rendered),
        parts=parts_of(items),
        alike=tuple(alike),
    )


def contents_of_bench(bench: str | pathlib.Path, limit: int | None = None) -> str:
    """Distinguishes what a list of fixed mixtures says, and the clips that it mixes.

    No clip is decoded. Raises `UserError` for a bad list.
    """
    listing, digest = load_bench(bench), hashlib.sha256()
    for item in choose(listing.mixtures, limit):
        named = sorted({event.clip for event in (*item.target, *item.residual)})
        clips = {clip: sha256_now(listing.clips[clip]) for clip in named}
        digest.update(json.dumps([_fields(item, True), clips], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _fields(item: FixedMixture, examples: bool) -> dict[str, Any]:
    """What the list says of an item; with `examples` also what is in their files."""
    fields = dataclasses.asdict(item)
    for name in ("line", "example", "other_example"):
        path = fields.pop(name)
        fields |= {name: sha256_now(path)} if examples and name != "line" and path else {}
    return fields


def _digest(one: Rendered[FixedMixture], examples: bool) -> str:
    """Distinguishes an item by all that the list says of it and by its waves.

    Where files are does not count; with `examples` what is in those of the item does.
    """
    digest = hashlib.sha256(json.dumps(_fields(one.item, examples), sort_keys=True).encode())
    for wave in (one.target, one.residual):  # the mixture is their sum
        digest.update(np.ascontiguousarray(wave).data)
    return digest.hexdigest()[:16]


def _in_memory(prompted: PromptedMixture) -> Separation:
    item = prompted.recorded.item
    load = functools.partial(_same, prompted)
    return Separation(item.id, item.setting, prompted.kind, prompted.length, load, prompted.right)


def _same(prompted: PromptedMixture) -> PromptedMixture:
    return prompted


def parts_of(mixtures: Sequence[FixedMixture]) -> dict[str, str]:
    """Id -> part, of mixtures in whose setting there are known and new captions."""
    several = collections.defaultdict(set)
    for item in mixtures:
        several[item.setting].add(item.part)
    return {item.id: item.part for item in mixtures if item.part and len(several[item.setting]) > 1}


def batches(
    separations: Sequence[Separation], size: int, *, by_kind: bool = False
) -> list[list[Separation]]:
    """Batches of one length, with `by_kind` also of one kind of prompt, of `size` rows each.

    The last batch of a length may be smaller.
    """
    groups: dict[Any, list[Separation]] = {}
    for one in separations:
        groups.setdefault((one.length, one.kind if by_kind else ""), []).append(one)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]
