"""Which items run together, and at which padded length: few shapes, so few compilations.

Padding is not neutral in this architecture: the patcher's GroupNorm and convolution see padded
frames (docs/model.md, "Patcher"). So items of equal length go together unpadded where a call has
few lengths; only a call with many is padded, to lengths that depend on the item alone.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

from sam_audio_jax.bounds import Checked, Count, PositiveCount, Range, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import power_of_two


@dataclasses.dataclass(frozen=True, kw_only=True)
class BucketConfig(Checked, where="buckets"):
    """How many shapes a call may compile, and how large a batch may be."""

    exact: Count = 6  # up to so many different lengths of a call are not padded at all
    sizes: tuple[Size, ...] = ()  # padded lengths in frames; empty: made by `smallest` and `growth`
    smallest: Size = 25  # frames of the first padded length
    # From one padded length to the next.
    growth: Annotated[float, Range(1, 100, (False, True))] = 1.2
    batch: Size = 8  # items solved at once
    batch_frames: PositiveCount = 4_000  # frames solved at once, padding included: 160 s

    def __post_init__(self):
        super().__post_init__()
        if list(self.sizes) != sorted(set(self.sizes)) or min(self.sizes, default=1) < 1:
            raise UserError(f"buckets.sizes={self.sizes} must be positive and rise")


@dataclasses.dataclass(frozen=True)
class Group:
    """Items that are solved in one call of the network."""

    frames: int  # padded length
    rows: int  # padded number of items
    items: tuple[int, ...]  # positions in the call, at most `rows`; one, if it has several texts


def group(
    lengths: Sequence[int],
    config: BucketConfig,
    *,
    longest: int = sys.maxsize,
    shards: int = 1,
    texts: Sequence[int] = (),
) -> list[Group]:
    """Every item in one group, whose rows are a multiple of `shards`, the shards of a batch.

    No group is padded beyond `longest` frames; an item that is longer is alone and not padded. The
    groups depend on the lengths and their order alone, never on what was run before.

    `texts` are the numbers of texts of the items (default: one each). An item with several is a
    group of its own, whose rows are the texts that are solved at once.
    """
    exact = len({length for length in lengths if length <= longest}) <= config.exact
    members: dict[int, list[int]] = {}
    for item, length in enumerate(lengths):
        if not exact and length <= longest:
            length = min(padded(length, config), longest)
        members.setdefault(length, []).append(item)
    groups = []
    for frames, items in sorted(members.items()):
        if frames > longest:
            groups += [Group(frames, 1, (item,)) for item in items]
            continue
        most = max(1, min(config.batch, config.batch_frames // frames))
        most = shards * max(1, (1 << most.bit_length() - 1) // shards)
        for item in [item for item in items if texts and texts[item] > 1]:
            items.remove(item)
            groups.append(Group(frames, shards * -(-min(texts[item], most) // shards), (item,)))
        for start in range(0, len(items), most):
            part = tuple(items[start : start + most])
            groups.append(Group(frames, shards * power_of_two(-(-len(part) // shards)), part))
    return groups


def padded(length: int, config: BucketConfig) -> int:
    """The padded length of an item; beyond the last of `sizes`, growth goes on from there."""
    for size in config.sizes:
        if size >= length:
            return size
    size = config.sizes[-1] if config.sizes else config.smallest
    while size < length:
        size = max(size + 1, round(size * config.growth))
    return size
