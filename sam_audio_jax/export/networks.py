"""The four programs of a separation: what each computes, its inputs, and numbers to check it with.

The sizes `batch`, `frames` and `tokens` are left open.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.separator.model import PromptedSeparator, Separator
from sam_audio_jax.separator.prompts import ANCHOR_IDS, Conditions

Draw = Callable[[np.random.Generator, Any], np.ndarray]
Parameters = dict[str, Array]
# Sizes at which an exported program is compared with its network.
CHECKED_SIZES = {"batch": 2, "frames": 21, "tokens": 7}


@dataclasses.dataclass(frozen=True)
class Argument:
    """An input or the output of a program.

    A size is a number, the name of an open one, or a multiple of one as in `640*frames`.
    """

    name: str
    shape: tuple[str | int, ...]
    dtype: str
    meaning: str
    draw: Draw = dataclasses.field(repr=False, default=lambda rng, shape: _normal(rng, shape))

    def to_json(self) -> dict[str, Any]:
        """What a caller has to know of it."""
        fields = {"name": self.name, "shape": list(self.shape)}
        return fields | {"dtype": self.dtype, "meaning": self.meaning}

    def with_sizes(self, sizes: Mapping[str, int]) -> tuple[str | int, ...]:
        """Its shape where some open sizes, or all of them, have values."""
        return tuple(_size(axis, sizes) for axis in self.shape)


@dataclasses.dataclass(frozen=True)
class ExportedProgram:
    """`call(network, *inputs)`; nothing of the network is left that the call does not need."""

    name: str
    network: nnx.Module
    call: Callable[..., Array]
    inputs: tuple[Argument, ...]
    output: Argument
    most_frames: int | None = None
    traced_first: bool = False  # for a converter that reads primitives alone

    @property
    def weights(self) -> Parameters:
        """The parameters of the network by their paths."""
        flat = nnx.to_flat_state(nnx.state(self.network))
        return {_joined(path): variable.get_value() for path, variable in flat}

    def of_weights(self, weights: Parameters, inputs: Mapping[str, Any]) -> Array:
        """The program as a function of its parameters and its inputs by name."""
        graph, state = nnx.split(self.network)
        paths = [path for path, _ in nnx.to_flat_state(state)]
        state = nnx.from_flat_state([(path, weights[_joined(path)]) for path in paths])
        ordered = (inputs[argument.name] for argument in self.inputs)
        return self.call(nnx.merge(graph, state), *ordered)

    def draw_inputs(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs of the sizes that are given for the open ones."""
        rng = np.random.default_rng(seed)
        return {
            one.name: one.draw(rng, one.with_sizes(sizes)).astype(one.dtype) for one in self.inputs
        }


def programs_of(codec: Codec, prompted: PromptedSeparator) -> list[ExportedProgram]:
    """The programs of a model: codec encoder and decoder, text encoder, one velocity."""
    return [
        *_codec_programs(codec),
        _text_program(prompted),
        _velocity_program(prompted.separator),
    ]


def _codec_programs(codec: Codec) -> list[ExportedProgram]:
    hop, channels = codec.config.hop, codec.config.codebook_dim
    wave = f"mono, at {codec.config.sample_rate} Hz, full scale 1, whole frames of {hop} samples"
    latents = Argument(
        "latents", ("batch", "frames", channels), "float32", "the codec's frames, normalised"
    )
    samples = Argument("wave", ("batch", f"{hop}*frames"), "float32", wave, _quiet)
    encoder = _without(codec, "decoder", "out_proj", "watermark")
    decoder = _without(codec, "encoder", "in_proj", "watermark")
    return [
        ExportedProgram("encoder", encoder, Codec.encode, (samples,), latents),
        ExportedProgram("decoder", decoder, Codec.decode, (latents,), samples),
    ]


def _text_program(prompted: PromptedSeparator) -> ExportedProgram:
    config = prompted.text_encoder.config
    tokens = ("batch", "tokens")
    words = Argument("ids", tokens, "int32", "of the tokenizer", _below(config.vocab_size))
    real = Argument("mask", tokens, "bool", "true at real tokens", _lengths)
    width = ("batch", "tokens", config.width)
    states = Argument("text", width, "float32", "states of the text encoder")
    return ExportedProgram(
        "text_encoder",
        prompted.text_encoder,
        _encode_text,
        (words, real),
        states,
        traced_first=True,
    )


def _velocity_program(separator: Separator) -> ExportedProgram:
    config, grid = separator.config, ("batch", "frames")
    separator = _copy(separator)
    for _, module in nnx.iter_modules(separator):
        if isinstance(module, Attention):
            module.kernel = "xla"  # the other ones are for one platform each
    text = ("batch", "tokens", config.text_width)
    state = (*grid, 2 * config.channels)
    inputs = [
        Argument("state", state, "float32", "latents of target and residual, side by side"),
        Argument("time", ("batch",), "float32", "flow time, 0 at the noise, 1 at the data", _times),
        Argument("mixture", (*grid, config.channels), "float32", "latents of the recording"),
        Argument("text", text, "float32", "what the text encoder gives"),
        Argument("text_mask", ("batch", "tokens"), "bool", "true at real tokens", _lengths),
        Argument(
            "anchors", grid, "int32", "id of each frame, see anchors", _below(len(ANCHOR_IDS))
        ),
        Argument("valid", grid, "bool", "true at frames of the recording", _lengths),
    ]
    if separator.reads_video:
        video = (*grid, config.video_width)
        meaning = "features of the masked video; zeros without one"
        inputs.append(Argument("video", video, "float32", meaning))
    if config.dit.step_size:
        meaning = "of the solver, see the steps; 0: the velocity at the time itself"
        inputs.append(Argument("step_size", ("batch",), "float32", meaning, _times))
    velocity = Argument("velocity", state, "float32", "of the state, by the flow time")
    most, names = config.dit.max_positions, [one.name for one in inputs]

    def call(separator: Separator, *arrays: Array) -> Array:
        return _velocity(separator, **dict(zip(names, arrays, strict=True)))

    return ExportedProgram(
        "velocity", separator, call, tuple(inputs), velocity, most, traced_first=True
    )


def _encode_text(encoder: Any, ids: Array, mask: Array) -> Array:
    return encoder(ids, mask)


def _velocity(
    separator: Separator,
    state: Array,
    time: Array,
    mixture: Array,
    text: Array,
    text_mask: Array,
    anchors: Array,
    valid: Array,
    video: Array | None = None,
    step_size: Array | None = None,
) -> Array:
    conditions = Conditions(
        mixture=mixture,
        text=text,
        text_mask=text_mask,
        anchors=anchors,
        valid=valid,
        video=video,
    )
    return separator(state, time, conditions, step_size=step_size)


def _copy(network: Any) -> Any:
    """Other modules around the same arrays."""
    return nnx.merge(*nnx.split(network))


def _without(codec: Codec, *names: str) -> Codec:
    part = _copy(codec)
    for name in names:
        setattr(part, name, nnx.data(None))
    return part


def _joined(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _size(axis: str | int, sizes: Mapping[str, int]) -> str | int:
    factor, _, name = str(axis).rpartition("*")
    return int(factor or 1) * sizes[name] if name in sizes else axis


def _normal(rng: np.random.Generator, shape: Any) -> np.ndarray:
    return rng.standard_normal(shape)


def _quiet(rng: np.random.Generator, shape: Any) -> np.ndarray:
    return 0.1 * rng.standard_normal(shape)


def _times(rng: np.random.Generator, shape: Any) -> np.ndarray:
    return rng.random(shape)


def _lengths(rng: np.random.Generator, shape: Any) -> np.ndarray:
    """Rows of different lengths."""
    del rng
    rows, size = shape
    return np.arange(size)[None] < size - 2 * np.arange(rows)[:, None]


def _below(limit: int) -> Draw:
    return lambda rng, shape: rng.integers(0, limit, shape)
