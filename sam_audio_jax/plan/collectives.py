"""Collectives of a compiled program, read from its text: kind, bytes, mesh axes, how often."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from sam_audio_jax.plan import hlo

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SCATTERED = "all-reduce-scatter"  # XLA's TPU name of a computation that is a reduce-scatter

_OPCODE = re.compile(rf"({'|'.join(KINDS)})(-start)?")
_NAME = re.compile(r'op_name="([^"]*)"')
_CHAIN = re.compile(r'chain_id="(\d+)"')
# XLA's TPU names of the first and the last part of an asynchronous collective that is fused with
# products in between; every part has the whole collective in its text.
FIRST_PART = "async-collective-start"
LAST_PART = "async-collective-done"


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
    chain: str = ""  # what the parts of an asynchronous collective have in common

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by a ring."""
        share = (self.ways - 1) / self.ways
        once = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return once * self.result * self.times


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """The collectives in `compiled.as_text()`; groups of one device are left out.

    `mesh` has the sizes of its axes in order.
    """
    program = hlo.computations(text)
    first = {
        called
        for instructions in program.values()
        for one in instructions
        if one.name.startswith(FIRST_PART)
        for called in one.called
    }
    found = [
        (name, collective_of(one, mesh, inside=name, times=times))
        for name, times in hlo.runs(program).items()
        for one in program[name]
    ]
    return [one for name, one in found if one and (not one.chain or name in first)]


def collective_of(
    one: hlo.Instruction, mesh: Mapping[str, int], *, inside: str, times: int
) -> Collective | None:
    """The collective that an instruction is or starts, if its groups have more than one device.

    `inside` is the name of its computation, `times` how often that runs.
    """
    match = _OPCODE.fullmatch(one.opcode)
    axes, ways = _axes(one.attributes, mesh) if match else ((), 1)
    if match is None or ways < 2:
        return None
    arrays = one.result
    if match[2] and match[1] in ("all-gather", "collective-permute"):  # (operand, result, ...)
        arrays = [array for array in arrays if array.sides][1:2]
    source, chain = _NAME.search(one.attributes), _CHAIN.search(one.attributes)
    return Collective(
        kind="reduce-scatter" if inside.startswith(SCATTERED) else match[1],
        axes=axes,
        ways=ways,
        # (Of a reduce-scatter the text has the part that is left on each device.)
        result=sum(array.size for array in arrays) * (ways if match[1] == "reduce-scatter" else 1),
        times=times,
        dtypes=frozenset(array.dtype for array in arrays),
        source=source[1] if source else "",
        chain=chain[1] if chain else "",
    )


def _axes(line: str, mesh: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
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
