"""The arithmetic of the networks that `sam-audio bench` measures, in PyTorch, to compare with.

The released implementation needs packages and weights that a bench cannot ask for. These functions
compute the same numbers from this package's weights, the way PyTorch computes them best: `linear`,
`conv1d` and `scaled_dot_product_attention` of the library, channels before frames in the codec. The
bench compares their results with ours before it times them.
"""

import functools
import math
import os
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from flax import nnx

from sam_audio_jax.bench.parts import Forward
from sam_audio_jax.bench.weights import draw
from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.codec.encoder import DILATIONS
from sam_audio_jax.nn import rope
from sam_audio_jax.separator.model import SeparatorConfig

Weights = dict[str, torch.Tensor]


def call(forward: Forward) -> Callable[[], torch.Tensor]:
    """Returns a part of the bench in PyTorch, with its weights and inputs, on as many cores."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network: Any = nnx.eval_shape(forward.make)
    weights = weights_of(draw(forward.make), stacked=forward.torch == "velocity")
    inputs = forward.inputs()
    if forward.torch == "velocity":
        noisy, time, conditions = inputs
        tensors = {name: _tensor(value) for name, value in vars(conditions).items()}
        arguments = (_tensor(noisy), _tensor(time), types.SimpleNamespace(**tensors))
        return lambda: velocity(weights, network.config, *arguments)
    run = encode if forward.torch == "encode" else decode
    return lambda: run(weights, network.config, _tensor(*inputs))


def _tensor(array: Any) -> torch.Tensor:
    """Returns a copy: PyTorch must not write into JAX's memory."""
    return torch.from_numpy(np.array(array))


def weights_of(leaves: Iterable[tuple[Any, np.ndarray]], *, stacked: bool) -> Weights:
    """Returns the parameters by dotted names, in PyTorch's layout.

    Kernels of linear layers are `(out, in)`, those of convolutions `(out, in, window)`. `stacked`
    parameters of blocks become one tensor for each block, named `blocks.N.`.
    """
    weights: Weights = {}
    for path, array in leaves:
        names = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
        if stacked and "blocks" in names:
            at = names.index("blocks") + 1
            for layer, part in enumerate(array):
                weights[".".join([*names[:at], str(layer), *names[at:]])] = _in_layout(names, part)
        else:
            weights[".".join(names)] = _in_layout(names, array)
    return weights


def _in_layout(names: list[str], array: np.ndarray) -> torch.Tensor:
    """Returns the tensor of one parameter."""
    if names[-1] in ("kernel", "direction"):
        array = array.T if array.ndim == 2 else array.transpose(2, 1, 0)
    return torch.from_numpy(np.array(array, order="C"))


def _linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w[f"{name}.kernel"], w.get(f"{name}.bias"))


def _gated(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    hidden = F.silu(_linear(w, f"{name}.gate", x)) * _linear(w, f"{name}.up", x)
    return _linear(w, f"{name}.down", hidden)


def _rms_norm(w: Weights, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:], w[f"{name}.scale"], eps)


def _sinusoid(time: torch.Tensor, width: int) -> torch.Tensor:
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(width // 2) / (width // 2))
    angle = time[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _attention(
    w: Weights,
    name: str,
    x: torch.Tensor,
    memory: torch.Tensor,
    *,
    heads: int,
    eps: float,
    angle: tuple[torch.Tensor, torch.Tensor] | None,
    mask: torch.Tensor,
) -> torch.Tensor:
    def split(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = (
        split(_linear(w, f"{name}.{part}", y))
        for part, y in (("query", x), ("key", memory), ("value", memory))
    )
    q = _rms_norm(w, f"{name}.query_norm", q, eps)
    k = _rms_norm(w, f"{name}.key_norm", k, eps)
    if angle is not None:
        q, k = _rotate(q, *angle), _rotate(k, *angle)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
    return _linear(w, f"{name}.out", mixed.transpose(1, 2).flatten(2))


def _conv_block(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Group norm with one group, SiLU and a convolution, `(batch, width, frames)`."""
    normal = F.group_norm(x, 1, w[f"{name}.norm.scale"], w[f"{name}.norm.bias"])
    return F.conv1d(F.silu(normal), w[f"{name}.kernel"], w[f"{name}.bias"], padding=1)


@torch.inference_mode()
def velocity(
    w: Weights, config: SeparatorConfig, noisy: torch.Tensor, time: torch.Tensor, conditions: Any
) -> torch.Tensor:
    """The separator's velocity, `(batch, frames, 2 * channels)`; docs/model.md.

    `w` holds the separator's weights with its blocks apart; `conditions` has
    the fields of `separator.prompts.Conditions` as tensors, none of them missing.
    """
    dit = config.dit
    mixture, valid = conditions.mixture, conditions.valid
    inputs = torch.cat([noisy, torch.zeros_like(noisy), mixture, mixture], dim=-1)
    x = _linear(w, "project", inputs)
    video = _linear(w, "align_video.project", conditions.video)
    norm = w["align_video.norm.scale"], w["align_video.norm.bias"]
    x = x + torch.tanh(w["align_video.gate"]) * F.layer_norm(video, video.shape[-1:], *norm)
    anchors = F.embedding(conditions.anchors.long(), w["embed_anchors.embed"])
    x = x + torch.tanh(w["embed_anchors.gate"]) * _linear(w, "embed_anchors.project", anchors)
    memory = _linear(w, "project_text", conditions.text) + _sinusoid(time, dit.width)[:, None]

    vector = _gated(w, "dit.time.project", _sinusoid(time, dit.frequency_width))
    modulation = _linear(w, "dit.time.to_blocks", F.silu(vector)).unflatten(-1, (6, -1))
    memory = _gated(w, "dit.context", memory)
    across = x.transpose(1, 2)
    for part in ("first", "second"):
        across = _conv_block(w, f"dit.patcher.{part}", across)
    x = x + across.transpose(1, 2)

    table = torch.from_numpy(rope.angles(x.shape[1], dit.head_dim, dit.theta))
    attend = functools.partial(_attention, w, heads=dit.heads, eps=dit.norm_eps)
    for layer in range(dit.depth):
        name = f"dit.blocks.{layer}"
        rows = (w[f"{name}.modulation"] + modulation).unsqueeze(2).unbind(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        normal = _rms_norm(w, f"{name}.attention_norm", x, dit.norm_eps) * (1 + scale1) + shift1
        angle = table.cos(), table.sin()
        x = x + gate1 * attend(f"{name}.attention", normal, normal, angle=angle, mask=valid)
        mask = conditions.text_mask
        x = x + attend(f"{name}.cross_attention", x, memory, angle=None, mask=mask)
        normal = _rms_norm(w, f"{name}.mlp_norm", x, dit.norm_eps) * (1 + scale2) + shift2
        x = x + gate2 * _gated(w, f"{name}.mlp", normal)
    shift, scale = (w["dit.modulation"] + vector[:, None]).unsqueeze(2).unbind(1)
    x = _rms_norm(w, "dit.norm", x, dit.norm_eps) * (1 + scale) + shift
    return _linear(w, "dit.out", x)


def _snake(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    alpha = w[f"{name}.alpha"][:, None]
    return x + torch.sin(alpha * x).square() / (alpha + 1e-9)


def _normed(w: Weights, name: str, direction: torch.Tensor) -> torch.Tensor:
    """Returns the kernel of a weight-normed convolution, whose norms are along its first axis."""
    scale = w[f"{name}.scale"][:, None, None]
    return direction * (scale / direction.norm(dim=(1, 2), keepdim=True))


def _conv(
    w: Weights, name: str, x: torch.Tensor, *, stride: int = 1, dilation: int = 1
) -> torch.Tensor:
    kernel = _normed(w, name, w[f"{name}.direction"])
    pad = (kernel.shape[-1] - stride) * dilation // 2
    return F.conv1d(x, kernel, w[f"{name}.bias"], stride, pad, dilation)


def _upsample(w: Weights, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    kernel = _normed(w, name, w[f"{name}.direction"].transpose(0, 1))  # (in, out, window)
    left = (stride + 1) // 2
    y = F.conv_transpose1d(x, kernel, w[f"{name}.bias"], stride)
    return y[..., left : left + x.shape[-1] * stride]


def _units(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    for index, dilation in enumerate(DILATIONS):
        unit = f"{name}.units.{index}"
        hidden = _conv(w, f"{unit}.dilated", _snake(w, f"{unit}.snake_in", x), dilation=dilation)
        x = x + _conv(w, f"{unit}.pointwise", _snake(w, f"{unit}.snake_out", hidden))
    return x


@torch.inference_mode()
def encode(w: Weights, config: CodecConfig, wave: torch.Tensor) -> torch.Tensor:
    """Latents of a wave of whole frames, `(batch, frames, channels)`; docs/codec.md."""
    x = _conv(w, "encoder.stem", wave[:, None])
    for index, stride in enumerate(config.encoder_rates):
        block = f"encoder.blocks.{index}"
        x = _snake(w, f"{block}.snake", _units(w, block, x))
        x = _conv(w, f"{block}.down", x, stride=stride)
    x = _conv(w, "encoder.out", _snake(w, "encoder.snake", x))
    mean = _conv(w, "in_proj", x).chunk(2, dim=1)[0]
    return (mean.transpose(1, 2) - config.mean) / config.std


@torch.inference_mode()
def decode(w: Weights, config: CodecConfig, latents: torch.Tensor) -> torch.Tensor:
    """The wave of latents, `(batch, samples)`, without a watermark; docs/codec.md."""
    x = _conv(w, "out_proj", (latents * config.std + config.mean).transpose(1, 2))
    x = _conv(w, "decoder.stem", x)
    for index, stride in enumerate(config.decoder_rates):
        block = f"decoder.blocks.{index}"
        x = _upsample(w, f"{block}.up", _snake(w, f"{block}.snake", x), stride)
        x = _units(w, block, x)
    return torch.tanh(_conv(w, "decoder.out", _snake(w, "decoder.snake", x)))[:, 0]
