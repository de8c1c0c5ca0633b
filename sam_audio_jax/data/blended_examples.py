"""Examples of several recipes in one stream (docs/data.md, "Recipes")."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sam_audio_jax.data.config import DataConfig, RecipeConfig
from sam_audio_jax.data.examples import ENDLESS, CachedExamples, MixedExamples
from sam_audio_jax.data.interleave import Interleave
from sam_audio_jax.data.labelled_examples import LabelledExamples
from sam_audio_jax.data.length_buckets import Bucket
from sam_audio_jax.data.prompter import Example
from sam_audio_jax.errors import UserError

Listed = MixedExamples | CachedExamples | LabelledExamples


class BlendedExamples:
    """Examples of several lists, of which each has a share that may change over the steps."""

    def __init__(
        self, names: Sequence[str], lists: Sequence[Listed], order: Interleave, group: int
    ):
        """`group` neighbours, the examples of a pair, are of one list.

        Raises `UserError` for lists whose examples do not have the same arrays.
        """
        self.names, self.lists, self.order, self.group = list(names), list(lists), order, group
        self.video_width = self._fit()

    def _fit(self) -> int:
        """Width of the video features of all examples; 0: none has any."""
        leaves = [
            (name, leaf)
            for name, one in zip(self.names, self.lists, strict=True)
            for leaf in _leaves(one)
        ]
        if len({isinstance(leaf, CachedExamples) for _, leaf in leaves}) > 1:
            raise UserError(
                f"data.blend: of {', '.join(self.names)} some have a cache and others none: "
                "examples are latents, or they are waves"
            )
        cached = [(name, leaf) for name, leaf in leaves if isinstance(leaf, CachedExamples)]
        for what, value in (
            ("channels of latents", lambda leaf: leaf.cache.index["channels"]),
            ("frames from one feature of a teacher to the next (0: none)", lambda x: x.segment),
        ):
            _check_equal(what, {name: value(leaf) for name, leaf in cached})
        widths = {
            name: leaf.video_width
            if isinstance(leaf, CachedExamples)
            else leaf.video.width
            if leaf.video is not None
            else 0
            for name, leaf in leaves
        }
        _check_equal("numbers of video features", {n: w for n, w in widths.items() if w})
        width = max(widths.values())
        for _, leaf in cached:
            leaf.video_width = width
        return width

    @property
    def folders(self) -> str:
        """The folders that cached examples are from, for messages."""
        return " and ".join(one.folders for one in self.lists if not isinstance(one, MixedExamples))

    @property
    def record_frames(self) -> int | None:
        """Frames of the shortest records; None: the examples are waves of any length."""
        lists = [one for one in self.lists if not isinstance(one, MixedExamples)]
        return min((one.record_frames for one in lists), default=None)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Example:
        which, number = self._place(index)
        return self._with_video(self.lists[which][number])

    def in_bucket(self, index: int, bucket: Bucket) -> Example:
        """Example `index` of the stream, at a length of the bucket and padded to its frames."""
        which, number = self._place(index)
        return self._with_video(self.lists[which].in_bucket(number, bucket))

    def _place(self, index: int) -> tuple[int, int]:
        unit, rest = divmod(index, self.group)
        which, number = self.order(unit)
        return which, number * self.group + rest

    def _with_video(self, example: Example) -> Example:
        if not self.video_width or "video" in example:
            return example
        shape = len(example["valid"]), self.video_width
        return example | {"video": np.zeros(shape, np.float16)}


def _leaves(one: Listed) -> list[MixedExamples | CachedExamples]:
    if isinstance(one, LabelledExamples):
        return [leaf for leaf in (one.labelled, one.cached) if leaf is not None]
    return [one]


def _check_equal(what: str, values: Mapping[str, int | float]) -> None:
    if len(set(values.values())) > 1:
        found = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise UserError(f"data.blend differ in the {what}: {found}")


def blended_examples(
    config: DataConfig,
    examples: Callable[[DataConfig], Listed],
    first_of: Callable[[int], int],
) -> BlendedExamples:
    """The examples of `config.blend`; `examples` makes those of one config without recipes.

    `first_of` is the number of the first example of a step. Recipes that never have any weight are
    not opened.
    """
    recipes = [one for one in config.blend if one.ever_used]
    if not recipes:
        raise UserError("data.blend have no weight at any step")
    group = 2 if config.prompts.pair_share else 1
    steps = sorted({0, *(step for one in recipes for step, _ in one.curriculum)})
    weights = [
        (first_of(step) // group, [one.weight_at(step) for one in recipes]) for step in steps
    ]
    lists = [examples(config_of(config, one)) for one in recipes]
    names = [one.name for one in recipes]
    return BlendedExamples(names, lists, Interleave(weights, config.seed), group)


def config_of(config: DataConfig, recipe: RecipeConfig) -> DataConfig:
    """The config of one recipe alone. Its seed is of its name, so that no other recipe matters."""
    labels = recipe.labels
    if labels.folder and not recipe.cache:
        labels = dataclasses.replace(labels, share=1.0)
    seed = (config.seed + zlib.crc32(recipe.name.encode())) % 2**32
    return dataclasses.replace(
        config,
        source=recipe.source,
        mix=recipe.mix,
        cache=recipe.cache,
        labels=labels,
        blend=(),
        seed=seed,
    )


def named_recipe(config: DataConfig, name: str) -> DataConfig:
    """The config of the recipe of one name. Raises `UserError` where there is none."""
    for recipe in config.blend:
        if recipe.name == name:
            return config_of(config, recipe)
    names = ", ".join(recipe.name for recipe in config.blend) or "none"
    raise UserError(f"no recipe {name!r} in data.blend; there are: {names}")
