"""Pictures of small scenes: objects that move over a background, and where each of them is seen.

An object is a picture with an alpha channel, which says where the object is in it.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

SIZE = 96  # pixels of a side of a scene
LONGEST = 128  # pixels of an object's longer side before it is brought to its size in a scene
OPAQUE = 127  # above it a pixel of an alpha channel is the object
SHARES = (0.35, 0.75)  # of a scene's side, the object's longer one

Picture = UInt8[np.ndarray, "size size 3"]
Visible = Bool[np.ndarray, "objects size size"]


@functools.lru_cache(maxsize=512)
def read_object(path: pathlib.Path) -> Image.Image:
    """The picture of an object, cropped to what is seen of it."""
    picture = Image.open(path).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return picture


@dataclasses.dataclass(frozen=True)
class Motion:
    """How an object moves: from one place to another and back, in shares of a scene's side."""

    begin: tuple[float, float]
    end: tuple[float, float]
    share: tuple[float, float]  # size at either place
    flipped: bool
    cycles: float  # there and back in a scene
    phase: float  # where in this way it begins, 0 to 1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Motion":
        """A random motion; all of it is between the middles of the margins."""
        places = rng.uniform(0.2, 0.8, (2, 2))
        return cls(
            begin=(float(places[0, 0]), float(places[0, 1])),
            end=(float(places[1, 0]), float(places[1, 1])),
            share=(float(rng.uniform(*SHARES)), float(rng.uniform(*SHARES))),
            flipped=bool(rng.random() < 0.5),
            cycles=float(rng.uniform(0.5, 2.0)),
            phase=float(rng.random()),
        )

    def pose(self, time: float) -> tuple[float, float, float]:
        """Column, row and size at a time, 0 to 1, in shares of a scene's side."""
        way = 0.5 - 0.5 * np.cos(2 * np.pi * (self.phase + self.cycles * time))
        pairs = zip((*self.begin, self.share[0]), (*self.end, self.share[1]), strict=True)
        column, row, share = (float((1 - way) * a + way * b) for a, b in pairs)
        return column, row, share


@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects that move over a background; later ones are in front of earlier ones."""

    background: Picture
    objects: tuple[Image.Image, ...]
    motions: tuple[Motion, ...]
    order: tuple[int, ...]  # of the objects, the hindmost first

    @classmethod
    def draw(cls, objects: Sequence[Image.Image], rng: np.random.Generator) -> "Scene":
        """A random scene of these objects."""
        motions = tuple(Motion.draw(rng) for _ in objects)
        order = tuple(int(number) for number in rng.permutation(len(objects)))
        return cls(draw_background(rng), tuple(objects), motions, order)

    def at(self, time: float) -> tuple[Picture, Visible]:
        """The picture at a time, 0 to 1, and where each object is seen in it."""
        canvas = Image.fromarray(self.background)
        visible = np.zeros((len(self.objects), SIZE, SIZE), bool)
        for number in self.order:
            motion = self.motions[number]
            sprite, corner = _sprite(self.objects[number], motion.flipped, motion.pose(time))
            canvas.paste(sprite, corner, sprite)
            alpha = Image.new("L", (SIZE, SIZE))
            alpha.paste(sprite.getchannel("A"), corner)
            covered = np.asarray(alpha) > OPAQUE
            visible &= ~covered
            visible[number] = covered
        return np.asarray(canvas), visible

    def frames(
        self, count: int
    ) -> tuple[UInt8[np.ndarray, "count size size 3"], Bool[np.ndarray, "objects count size size"]]:
        """All of it in `count` pictures, and where each object is seen in them."""
        pictures, visible = zip(*(self.at(i / count) for i in range(count)), strict=True)
        return np.stack(pictures), np.stack(visible, axis=1)


def _sprite(
    picture: Image.Image, flipped: bool, pose: tuple[float, float, float]
) -> tuple[Image.Image, tuple[int, int]]:
    """The object in its size, and where its upper left corner is."""
    column, row, share = pose
    factor = share * SIZE / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    sprite = picture.resize((width, height), Image.Resampling.BILINEAR)
    if flipped:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return sprite, (round(column * SIZE - width / 2), round(row * SIZE - height / 2))


def draw_background(rng: np.random.Generator) -> Picture:
    """A random background: colours that flow into each other, and a grain."""
    cells = int(rng.integers(1, 7))
    coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    grain = rng.normal(0, rng.uniform(0, 20), (SIZE, SIZE, 1))
    return np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
