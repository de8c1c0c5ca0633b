"""The networks that tests share: codec, text encoder, separator, judge, CLAP, filled with numbers.

Each size of an array is a program to compile when it is drawn by JAX; `filled` draws them with
NumPy instead, so that making a network compiles nothing.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.encoders.modernbert import ModernBertConfig
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.encoders.roberta import RobertaConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.scorers.clap import ClapConfig
from sam_audio_jax.scorers.htsat import HtsatConfig
from sam_audio_jax.scorers.judge import JudgeConfig
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import SeparatorConfig

M = TypeVar("M", bound=nnx.Module)

CODEC = CodecConfig(
    sample_rate=8_000,
    encoder_dim=4,
    encoder_rates=(16, 20),
    latent_dim=8,
    decoder_dim=32,
    decoder_rates=(20, 16),
    codebook_dim=8,
    watermark_rates=(),
)
TEXT = T5Config(vocab_size=384, width=16, head_dim=8, heads=2, mlp=32, depth=1)
SEPARATOR = SeparatorConfig(
    dit=DitConfig(depth=1, width=32, heads=2, mlp=64, dtype="float32", max_positions=500),
    channels=8,
    text_width=16,
    video_width=4,
    anchor_width=8,
)
JUDGE = JudgeConfig(
    audio=PeavConfig(depth=1, width=8, heads=2, mlp=12),
    scoring=PeavConfig(depth=1, width=8, heads=2, mlp=12),
    text=ModernBertConfig(vocab_size=384, width=8, depth=2, heads=2, mlp=8, window=4),
    bottleneck=6,
    sample_rate=200,
    encoder_dim=2,
    encoder_rates=(8,),
    latent_dim=4,
    channels=3,
)
CLAP = ClapConfig(
    sample_rate=800,
    samples=120,
    window=64,
    hop=8,
    low_hz=20.0,
    high_hz=400.0,
    audio=HtsatConfig(mels=8, image=16, patch=2, width=4, depths=(1, 3), heads=(2, 2), window=4),
    text=RobertaConfig(vocab_size=300, width=4, depth=2, heads=2, mlp=6, positions=12),
    embedding=5,
    tokens=8,
)


def filled(make: Callable[[], M], seed: int = 0) -> M:
    """The network that `make` builds, every weight drawn by NumPy and none of them zero.

    Kernels are scaled by their fan-in, so that activations stay of order one; scales and gates are
    near 1, all other weights are small.
    """
    graph, abstract = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        normal = rng.standard_normal(leaf.shape)
        match jax.tree_util.keystr(path[-1:], simple=True):
            case "scale" | "gate" | "alpha" | "variance":
                value = 1 + 0.1 * normal
            case "kernel" | "direction":
                value = normal / math.sqrt(leaf.shape[-2])
            case "embed" | "embedding":
                value = normal
            case _:
                value = 0.1 * normal
        return jnp.asarray(value, leaf.dtype)

    pure = jax.tree_util.tree_map_with_path(draw, nnx.as_pure(abstract))
    return nnx.merge(graph, pure)
