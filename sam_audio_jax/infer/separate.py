"""Prompts in, stems out: the public face of the project.

model = SAMAudio.from_pretrained("tiny")
stems = model.separate("street.wav", text="dog barking", spans=[("+", 1.0, 2.5)])
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.workdir import SHIPPED, load_networks
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.buckets import BucketConfig, Group, group
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig, wiener
from sam_audio_jax.infer.solve import Networks, Solver, Tokenize, pack
from sam_audio_jax.separator.flow import Method
from sam_audio_jax.separator.model import PromptedSeparator

METHODS = ("midpoint", "euler", "heun")
REFINEMENTS = (None, "wiener")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How the flow is integrated unless a call says otherwise; the defaults are published."""

    method: str = "midpoint"  # or euler, heun
    steps: int = 16

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(f"method={self.method!r} is unknown; allowed: {', '.join(METHODS)}")
        if self.steps < 1:
            raise UserError(f"steps={self.steps} must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Stems:
    """What the prompts meant, and the rest.

    Generated stems are mono, `[samples]`, at the codec's rate. Refined ones have the shape and rate
    of the recording (`[channels, samples]` unless the caller gave `[samples]`) and add up to it.
    """

    target: Float[np.ndarray, "*channels samples"]
    residual: Float[np.ndarray, "*channels samples"]
    sample_rate: int


class SAMAudio:
    """Separates sounds from recordings. Holds the networks and the programs compiled for them."""

    def __init__(
        self,
        codec: Codec,
        prompted: PromptedSeparator,
        tokenizer: Tokenize,
        *,
        sampler: SamplerConfig | None = None,
        buckets: BucketConfig | None = None,
        refinement: RefineConfig = DEFAULT,
        mesh: Mesh | None = None,
    ):
        channels = prompted.separator.config.channels
        if codec.config.codebook_dim != channels:
            raise UserError(
                f"the codec has {codec.config.codebook_dim} latent channels, "
                f"the separator {channels}"
            )
        self.networks = Networks(codec, prompted.text_encoder, prompted.separator)
        self.tokenizer = tokenizer
        self.sampler = sampler or SamplerConfig()
        self.buckets = buckets or BucketConfig()
        self.refinement = refinement
        self._solver = Solver(self.networks, mesh)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        buckets: BucketConfig | None = None,
        mesh: Mesh | None = None,
    ) -> "SAMAudio":
        """The networks of a shipped name, a training workdir or one step of it, a folder in the
        upstream layout, or a Hugging Face id; with a mesh, spread over its devices.

        UserError: nothing there, or what is there does not fit.
        """
        name = str(name)
        shipped = shipped_names()
        if name not in shipped and "/" not in name and not pathlib.Path(name).is_dir():
            raise UserError(
                f"no checkpoint {name!r}; shipped: {', '.join(shipped) or 'none'}; else give a "
                "workdir or one of its steps, a folder in the upstream layout, or a Hugging Face id"
            )
        codec, prompted, tokenizer, extra = load_networks(name)
        return cls(
            codec,
            prompted,
            tokenizer_for(tokenizer),
            sampler=from_dict(SamplerConfig, extra.get("sampler", {})),
            buckets=buckets,
            mesh=mesh,
        )

    @property
    def sample_rate(self) -> int:
        """Of the codec: what generated stems come out at."""
        return self.networks.codec.config.sample_rate

    def separate(
        self,
        audio: Any,
        text: Any = None,
        spans: Any = None,
        *,
        sample_rate: int | None = None,
        method: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        noise: Any = None,
        refine: str | None = None,
        descriptions: Any = None,
        anchors: Any = None,
    ) -> Any:
        """`Stems` of one recording, or a list of them for a list of recordings.

        `audio`: a path, or an array `[samples]` or `[channels, samples]` at `sample_rate`; with a
        list, `text`, `spans` and `noise` are lists too. `spans`: [("+" or "-", start_s, end_s)].
        `noise`: x(0), `[frames, 2 * latent channels]`; otherwise drawn from `seed`, the same for
        every item, so that an item's stems do not depend on its company.
        `refine="wiener"` divides the recording itself as the generated stems say.
        `descriptions` and `anchors` are the reference's names of `text` and `spans`.
        UserError: anything that a caller can mend, before any work is done.
        """
        many = isinstance(audio, list | tuple)
        text = _one_of("text", text, "descriptions", descriptions)
        spans = _one_of("spans", spans, "anchors", anchors)
        sources = list(audio) if many else [audio]
        texts = _per_item("text", text, many, len(sources))
        spans_of = _per_item("spans", spans, many, len(sources))
        noises = _per_item("noise", noise, many, len(sources))
        items = [
            self.item(
                source,
                said,
                marked,
                sample_rate=sample_rate,
                name=f"item {number}" if many else "audio",
            )
            for number, (source, said, marked) in enumerate(
                zip(sources, texts, spans_of, strict=True)
            )
        ]
        stems = self.separate_items(
            items, method=method, steps=steps, seed=seed, noises=noises, refine=refine
        )
        return stems if many else stems[0]

    def item(
        self,
        source: Any,
        text: str | None = None,
        spans: Sequence[Sequence] | None = None,
        *,
        sample_rate: int | None = None,
        name: str = "audio",
    ) -> Item:
        """Reads and checks one recording with its prompts; `name` is what errors call it."""
        item = inputs.make_item(
            source, text, spans, sample_rate=sample_rate, codec_rate=self.sample_rate, name=name
        )
        most = self.networks.separator.config.dit.max_positions
        if self.frames(item) > most:
            rate = self.networks.codec.config.frame_rate
            raise UserError(
                f"{name} lasts {self.frames(item) / rate:.0f} s, at most {most / rate:.0f} s can be"
            )
        return item

    def frames(self, item: Item) -> int:
        """Latent frames of an item."""
        return self.networks.codec.config.frames(len(item.wave))

    def plan(self, frames: Sequence[int]) -> list[Group]:
        """Which items of these lengths (in frames) are solved together, at which padded length."""
        return group(frames, self.buckets, shares=self._solver.shares)

    def separate_items(
        self,
        items: Sequence[Item],
        *,
        method: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        noises: Sequence[Any] | None = None,
        refine: str | None = None,
    ) -> list[Stems]:
        """Stems of checked items, in their order."""
        groups = self.plan([self.frames(item) for item in items])
        given = noises or [None] * len(items)
        for item, noise in zip(items, given, strict=True):
            self._noise(item, noise, seed, self.frames(item))  # wrong ones are refused before work
        stems: dict[int, Stems] = {}
        for part in groups:
            made = self.solve_group(
                part,
                [items[i] for i in part.items],
                method=method,
                steps=steps,
                seed=seed,
                noises=[given[i] for i in part.items],
                refine=refine,
            )
            stems |= dict(zip(part.items, made, strict=True))
        return [stems[number] for number in range(len(items))]

    def solve_group(
        self,
        part: Group,
        items: Sequence[Item],
        *,
        method: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        noises: Sequence[Any] | None = None,
        refine: str | None = None,
    ) -> list[Stems]:
        """One call of the compiled program: the items of one group of `plan`."""
        sampler = SamplerConfig(
            method=self.sampler.method if method is None else method,
            steps=self.sampler.steps if steps is None else steps,
        )
        if refine not in REFINEMENTS:
            raise UserError(f"refine={refine!r} is unknown; allowed: 'wiener' or None")
        drawn = [
            self._noise(item, noise, seed, part.frames)
            for item, noise in zip(items, noises or [None] * len(items), strict=True)
        ]
        prompts = pack(items, drawn, part, codec=self.networks.codec, tokenizer=self.tokenizer)
        waves = self._solver(prompts, method=cast(Method, sampler.method), steps=sampler.steps)
        return [self._stems(item, pair, refine) for item, pair in zip(items, waves, strict=False)]

    def _noise(
        self, item: Item, given: Any, seed: int, frames: int
    ) -> Float[np.ndarray, "frames state"]:
        """x(0) of an item padded to `frames`; padding never changes the frames before it."""
        state = 2 * self.networks.separator.config.channels
        drawn = inputs.draw_noise(seed, frames, state)
        if given is not None:
            drawn[: self.frames(item)] = inputs.check_noise(given, self.frames(item), state)
        return drawn

    def _stems(
        self, item: Item, waves: Float[np.ndarray, "stems samples"], refine: str | None
    ) -> Stems:
        """Cut to the recording's length; refined if asked."""
        target, residual = waves[:, : len(item.wave)]
        if refine is None:
            return Stems(target, residual, self.sample_rate)
        recording = item.recording
        target, residual = wiener(
            recording.samples,
            target,
            residual,
            sample_rate=recording.sample_rate,
            stem_rate=self.sample_rate,
            config=self.refinement,
        )
        if item.flat:
            target, residual = target[0], residual[0]
        return Stems(target, residual, recording.sample_rate)


def shipped_names() -> list[str]:
    """The models inside the package."""
    return sorted(file.parent.name for file in SHIPPED.glob("*/config.json"))


@functools.lru_cache(maxsize=1)
def _model(checkpoint: str) -> SAMAudio:
    return SAMAudio.from_pretrained(checkpoint)


def separate(
    audio: str | os.PathLike | np.ndarray,
    text: str | None = None,
    spans: Sequence[Sequence] | None = None,
    *,
    sample_rate: int | None = None,
    checkpoint: str = "tiny",
    seed: int = 0,
    refine: str | None = None,
) -> Stems:
    """One recording with a checkpoint that stays loaded; see `SAMAudio.separate`."""
    return _model(checkpoint).separate(
        audio, text, spans, sample_rate=sample_rate, seed=seed, refine=refine
    )


def _one_of(name: str, value: Any, upstream_name: str, upstream_value: Any) -> Any:
    if value is not None and upstream_value is not None:
        raise UserError(f"{name} and {upstream_name} are two names of one thing: give one of them")
    return upstream_value if value is None else value


def _per_item(name: str, value: Any, many: bool, count: int) -> list:
    """One value for each recording; a list of recordings needs a list as long."""
    if not many:
        return [value]
    if value is None:
        return [None] * count
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != count:
        given = f"{len(value)} values" if isinstance(value, list | tuple) else repr(value)
        raise UserError(f"{name} needs one value for each of {count} recordings, got {given}")
    return list(value)
