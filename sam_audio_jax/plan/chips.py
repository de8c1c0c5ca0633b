"""TPU chips and slices: names, public peak rates, and devices that only the compiler sees."""

import dataclasses
import math
import re
from typing import Any

from sam_audio_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """The best model FLOPs utilisation that was published for a chip, of large language models."""

    mfu: float
    model: str
    source: str  # a file of github.com/AI-Hypercomputer/maxtext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Rates of one device, as its maker publishes them; `hbm` is what the compiler allows.

    A device is a chip, on TPU7x each of the two halves of one, with half of its links.
    """

    name: str
    flops: float  # bf16, a second
    hbm: float  # bytes that a program may use
    hbm_rate: float  # bytes a second
    link_rate: float  # bytes a second of one inter-chip link in one direction
    wraps: int  # a torus dimension of at least this length is closed to a ring
    tile: int  # rows and columns of the matrix unit
    dimensions: int  # of the torus
    devices: int = 1  # of a chip
    published: Published | None = None


CHIPS = {
    "v5e": Chip(
        name="v5e",
        flops=197e12,
        hbm=15.75 * GIB,
        hbm_rate=819e9,
        link_rate=45e9,
        wraps=16,
        tile=128,
        dimensions=2,
        published=Published(
            mfu=0.669, model="32B on 256 chips", source="MaxText/configs/v5e/README.md"
        ),
    ),
    "v5p": Chip(
        name="v5p",
        flops=459e12,
        hbm=95.74 * GIB,
        hbm_rate=2765e9,
        link_rate=90e9,
        wraps=4,
        tile=128,
        dimensions=3,
        published=Published(
            mfu=0.715, model="32B on 64 chips", source="MaxText/configs/v5p/README.md"
        ),
    ),
    "v6e": Chip(
        name="v6e",
        flops=918e12,
        hbm=31.25 * GIB,
        hbm_rate=1640e9,
        link_rate=90e9,
        wraps=16,
        tile=256,
        dimensions=2,
        published=Published(
            mfu=0.503,
            model="Llama 3.1 70B on 256 chips",
            source="docs/reference/models/tiering.md",
        ),
    ),
    # Cloud publishes rates of a chip; none of the published trainings names an MFU.
    "tpu7x": Chip(
        name="tpu7x",
        flops=1153.5e12,
        hbm=94.75 * GIB,
        hbm_rate=3690e9,
        link_rate=45e9,
        wraps=4,
        tile=256,
        dimensions=3,
        devices=2,
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

    @property
    def size(self) -> int:
        """The number of devices, over which a mesh is laid."""
        return self.chips * self.chip.devices

    def devices(self) -> list[Any]:
        """Devices for a mesh; they compile and hold nothing.

        Raises `UserError` where libtpu is missing or has no such slice.
        """
        from jax.experimental import topologies

        # Of a slice of one chip libtpu has to hear that its host has no other.
        alone = {"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}
        try:
            return list(topologies.get_topology_desc(self.name, platform="tpu", **alone).devices)
        except Exception as error:  # libtpu's errors have no common class
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"no compiler for {self.name}: {first}; it needs libtpu (see the README's plan) "
                "and a shape of whole hosts"
            ) from None

    def is_ring(self, side: int) -> bool:
        """Whether the links along a torus dimension of this length close to a ring.

        In three dimensions they do where the slice is of whole cubes, of `wraps` chips a side
        (docs.cloud.google.com/tpu/docs/v5p).
        """
        wraps = self.chip.wraps
        whole = self.chip.dimensions < 3 or all(length % wraps == 0 for length in self.shape)
        return whole and side >= wraps

    def ring_rate(self, dims: int, closed: int) -> float:
        """Bytes a second of one chip's links along `dims` torus dimensions, `closed` of them rings.

        A closed dimension works in both directions, an open one in one at a time.
        """
        return self.chip.link_rate * (dims + closed)


def parse(name: str) -> Slice:
    """`v5e:16x16`, or Cloud's name of it: `v5e-256`; `v5p-512` counts cores, two to a chip."""
    match = re.fullmatch(r"(v5litepod|v\d+[ep]|tpu7x)([:-])(\d+(?:x\d+)*)", name)
    kind = match[1].replace("v5litepod", "v5e") if match else ""
    if match is None or kind not in CHIPS:
        raise UserError(
            f"topology {name!r} must be like v5e:16x16 or v5p-512, of {', '.join(CHIPS)}"
        )
    chip, shape = CHIPS[kind], match[3]
    if match[2] == "-":
        shape = _shape_of(name, kind, shape)
    dims = tuple(int(side) for side in shape.split("x"))
    if len(dims) != chip.dimensions or min(dims) < 1:
        raise UserError(f"topology {name!r}: {kind} has {chip.dimensions} dimensions")
    return Slice(chip, dims)


def _shape_of(name: str, kind: str, size: str) -> str:
    """The shape of a slice that Cloud names by its size."""
    if kind == "tpu7x":
        raise UserError(f"topology {name!r}: name the shape of a tpu7x, as tpu7x:4x4x4")
    cores = 2 if kind == "v5p" else 1
    known = DEEP if kind == "v5p" else FLAT
    if "x" in size or int(size) // cores not in known:
        raise UserError(
            f"topology {name!r}: {kind} comes as {', '.join(str(cores * n) for n in known)}"
        )
    return known[int(size) // cores]
