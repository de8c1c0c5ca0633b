"""Collectives of a compiled program, read from its text: kind, bytes, mesh axes, how often."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SCATTERED = "all-reduce-scatter"  # XLA's TPU name of a computation that is a reduce-scatter

_SHAPE = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OP = re.compile(rf"^\s*(?:ROOT )?%[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALL = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BODY = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective instruction of one device's program."""

    kind: str
    axes: tuple[str, ...]  # of the mesh, among whose devices it goes
    ways: int  # devices in a group
    result: int  # bytes: what a gather makes, what a reduction works on
    times: int  # runs in a step: the trips of the loops around it
    dtypes: frozenset[str]
    source: str  # the operation that it comes from, by JAX's name

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by a ring."""
        share = (self.ways - 1) / self.ways
        once = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return once * self.result * self.times


def collectives(text: str, mesh: dict[str, int]) -> list[Collective]:
    """The collectives in `compiled.as_text()`; groups of one device are left out.

    `mesh` has the sizes of its axes in order.
    """
    computations = _computations(text)
    instructions = []
    for name, times in _times(computations).items():
        for line in computations[name]:
            match = _OP.match(line)
            if match is None:
                continue
            axes, ways = _axes(line, mesh)
            if ways < 2:
                continue
            shapes = list(_SHAPE.finditer(match[1]))
            kind = match[2]
            if match[3] and kind in ("all-gather", "collective-permute"):  # (operand, result, ...)
                shapes = [s for s in shapes if s[2]][1:2]
            if name.startswith(SCATTERED):
                kind = "reduce-scatter"
            source = _NAME.search(line)
            instructions.append(
                Collective(
                    kind=kind,
                    axes=axes,
                    ways=ways,
                    result=sum(_size(shape) for shape in shapes),
                    times=times,
                    dtypes=frozenset(shape[1] for shape in shapes),
                    source=source[1] if source else "",
                )
            )
    return instructions


def _size(shape: re.Match[str]) -> int:
    """Returns the bytes of an array such as `bf16[8,128]`."""
    width = BYTES.get(shape[1]) or int(shape[1][1:]) // 8
    return width * math.prod(int(side) for side in shape[2].split(",") if side)


def _computations(text: str) -> dict[str, list[str]]:
    """Returns the lines of each computation by its name; the program's own is ENTRY."""
    bodies: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = bodies["ENTRY" if head[1] else head[2]] = []
        else:
            current.append(line)
    return bodies


def _times(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the program."""
    calls: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for name, lines in computations.items():
        for line in lines:
            loop = _BODY.search(line)
            trips = _trips(computations.get(loop[1], [])) if loop else 1
            for called in _CALL.findall(line):
                if called in computations:
                    body = loop is not None and called == loop[2]
                    calls[name].append((called, trips if body else 1))
    total: dict[str, int] = collections.Counter()

    def walk(name: str, times: int) -> None:
        total[name] += times
        for called, trips in calls[name]:
            walk(called, times * trips)

    walk("ENTRY", 1)
    return total


def _trips(condition: Sequence[str]) -> int:
    """The constant that a counting loop is compared with; 1 if there is no single one."""
    limits = [
        int(n) for line in condition for n in re.findall(r"s32\[\]\S* constant\((\d+)\)", line)
    ]
    return limits[0] if len(limits) == 1 else 1


def _axes(line: str, mesh: dict[str, int]) -> tuple[tuple[str, ...], int]:
    """The mesh axes along which the groups extend, and the number of devices in one."""
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if pairs:
        one = [int(n) for n in re.findall(r"\d+", pairs[1])]
        groups: Iterator[Sequence[int]] = zip(one[::2], one[1::2], strict=True)
        group = next((pair for pair in groups if pair[0] != pair[1]), ())
    else:
        group = _group(line, math.prod(mesh.values()))
    if len(group) < 2:
        return (), 1
    positions = np.stack(np.unravel_index(np.asarray(group), tuple(mesh.values())))
    moves = positions.max(axis=1) > positions.min(axis=1)
    return tuple(name for name, moved in zip(mesh, moves, strict=True) if moved), len(group)


def _group(line: str, devices: int) -> Sequence[int] | Int[np.ndarray, " group"]:
    """The first group, in any of the three notations of XLA."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    if listed:
        return [int(n) for n in listed[1].split(",") if n]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota:
        return _arranged(iota[1], iota[2], iota[3])[0]
    named = re.search(
        r"replica_groups=mesh\[([^\]]*)\]"
        r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}",
        line,
    )
    if named is None:
        return range(devices)
    sizes = {key: int(size) for key, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    wanted = re.findall(r"'(\w+)'", named[4])
    shape = ",".join(str(size) for size in sizes.values())
    ids = _arranged(shape, named[2] or str(math.prod(sizes.values())), named[3])
    first = tuple(slice(None) if key in wanted else 0 for key in sizes)
    return np.ravel(ids[first])


def _arranged(shape: str, source: str, order: str | None) -> Int[np.ndarray, "..."]:
    """Returns device numbers in XLA's iota notation: counted in `source`, transposed, reshaped."""

    def numbers(text: str) -> list[int]:
        return [int(n) for n in text.split(",")]

    ids = np.arange(math.prod(numbers(source))).reshape(numbers(source))
    if order:
        ids = ids.transpose(numbers(order))
    return ids.reshape(numbers(shape))
