"""TPU chips and slices: names, public peak rates, and devices that only the compiler sees."""

import dataclasses
import math
import re
from typing import Any

from sam_audio_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Peak rates of one chip, as its maker publishes them; `hbm` is what the compiler allows."""

    name: str
    flops: float  # bf16, a second
    hbm: float  # bytes that a program may use
    hbm_rate: float  # bytes a second
    link_rate: float  # bytes a second of one inter-chip link in one direction
    wraps: int  # a torus dimension of at least this length is closed to a ring


CHIPS = {
    "v5e": Chip(
        name="v5e", flops=197e12, hbm=15.75 * GIB, hbm_rate=819e9, link_rate=45e9, wraps=16
    ),
    "v5p": Chip(
        name="v5p", flops=459e12, hbm=95.74 * GIB, hbm_rate=2765e9, link_rate=90e9, wraps=4
    ),
    "v6e": Chip(
        name="v6e", flops=918e12, hbm=31.25 * GIB, hbm_rate=1640e9, link_rate=90e9, wraps=16
    ),
}
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
DEEP = {
    **{4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"},
    **{256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16", 4096: "16x16x16"},
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice: chips of one kind in a torus of this shape."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    def devices(self) -> list[Any]:
        """Devices for a mesh; they compile and hold nothing.

        Raises `UserError` where libtpu is missing or does not know the slice.
        """
        from jax.experimental import topologies

        try:
            return list(topologies.get_topology_desc(self.name, platform="tpu").devices)
        except Exception as error:  # libtpu's errors have no common class
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"no compiler for {self.name}: {first}; it needs libtpu, see the README's plan"
            ) from None

    def ring_rate(self, dims: int, closed: int) -> float:
        """Bytes a second of one chip's links along `dims` torus dimensions, `closed` of them rings.

        A closed dimension works in both directions, an open one in one at a time.
        """
        return self.chip.link_rate * (dims + closed)


def parse(name: str) -> Slice:
    """`v5e:16x16`, or Cloud's name of it: `v5e-256`; `v5p-512` counts cores, two to a chip."""
    match = re.fullmatch(r"(v5litepod|v\d+[ep])([:-])(\d+(?:x\d+)*)", name)
    kind = match[1].replace("v5litepod", "v5e") if match else ""
    if match is None or kind not in CHIPS:
        raise UserError(
            f"topology {name!r} must be like v5e:16x16 or v5p-512, of {', '.join(CHIPS)}"
        )
    shape = match[3]
    if match[2] == "-":
        count = int(shape) // 2 if kind == "v5p" else int(shape)
        known = DEEP if kind == "v5p" else FLAT
        if "x" in shape or count not in known:
            sizes = ", ".join(str(2 * n if kind == "v5p" else n) for n in known)
            raise UserError(f"topology {name!r}: {kind} comes as {sizes}")
        shape = known[count]
    dims = tuple(int(side) for side in shape.split("x"))
    if len(dims) != (3 if kind == "v5p" else 2) or min(dims) < 1:
        raise UserError(f"topology {name!r}: {kind} has {3 if kind == 'v5p' else 2} dimensions")
    return Slice(CHIPS[kind], dims)
