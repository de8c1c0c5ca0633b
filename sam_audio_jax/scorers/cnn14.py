"""PANNs' Cnn14, which recognises 527 kinds of sound: teacher of the separator's hidden states.

Paper: arXiv 1912.10211. Arithmetic: docs/scoring.md, "Cnn14". Frozen: the running
statistics of its batch norms are parameters like the others, and nothing here updates them.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.scorers import front_end

HE = jax.nn.initializers.he_uniform()
Image = Float[Array, "batch frames bins channels"]
Output = Float[Array, "batch frames_out bins_out channels_out"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cnn14Config:
    """Front end and sizes; the defaults are the published checkpoints'."""

    sample_rate: int = 32_000
    window: int = 1024  # samples
    hop: int = 320  # samples between frames
    mels: int = 64
    low_hz: float = 50.0
    high_hz: float = 14_000.0
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)  # of the convolutional blocks
    classes: int = 527
    norm_eps: float = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # of convolutions and matrix products

    def __post_init__(self):
        sizes = (self.sample_rate, self.window, self.hop, self.classes, *self.widths)
        if not self.widths or min(sizes) < 1:
            raise UserError(f"{self}: every size must be at least 1")
        if self.mels < self.frames_per_segment:
            raise UserError(
                f"cnn14.mels={self.mels} must be at least {self.frames_per_segment}, as it is "
                f"halved by all but one of {len(self.widths)} blocks"
            )

    @property
    def width(self) -> int:
        """Of the trunk and of the embeddings."""
        return self.widths[-1]

    @property
    def frames_per_segment(self) -> int:
        return 2 ** (len(self.widths) - 1)

    @property
    def segment_s(self) -> float:
        """Seconds from one segment to the next."""
        return self.frames_per_segment * self.hop / self.sample_rate

    @property
    def shortest(self) -> int:
        """Samples of the shortest wave that gives a segment."""
        return max((self.frames_per_segment - 1) * self.hop, self.window // 2 + 1)


class FrozenBatchNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + eps) * scale + bias` with stored statistics, in float32."""

    def __init__(self, size: int, *, eps: float):
        self.eps = eps
        axes = parallel.axes("embed")
        self.scale = nnx.Param(jnp.ones(size), **axes)
        self.bias = nnx.Param(jnp.zeros(size), **axes)
        self.mean = nnx.Param(jnp.zeros(size), **axes)
        self.variance = nnx.Param(jnp.ones(size), **axes)

    def __call__(self, x: Float[Array, "*places size"]) -> Float[Array, "*places size"]:
        gain = self.scale[...] * jax.lax.rsqrt(self.variance[...] + self.eps)
        return (x.astype(jnp.float32) - self.mean[...]) * gain + self.bias[...]


class ConvNormRelu(nnx.Module):
    """A 3 x 3 convolution without bias between zeros, its norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, eps: float, dtype: str, rngs: nnx.Rngs):
        self.dtype = dtype
        self.kernel = nnx.Param(
            HE(rngs.params(), (3, 3, inputs, outputs)),
            **parallel.axes("window", "window", "channels", "embed"),
        )
        self.norm = FrozenBatchNorm(outputs, eps=eps)

    def __call__(self, x: Image) -> Output:
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return nnx.relu(self.norm(y))


class ConvBlock(nnx.Module):
    """Two convolutions, then the mean of 2 x 2 fields except in the last block."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool, config: Cnn14Config, rngs):
        conv = functools.partial(ConvNormRelu, eps=config.norm_eps, dtype=config.dtype, rngs=rngs)
        self.first = conv(inputs, outputs)
        self.second = conv(outputs, outputs)
        self.pool = pool

    def __call__(self, x: Image) -> Output:
        x = self.second(self.first(x))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2)) if self.pool else x
        return parallel.constrain(x, "batch", "frames", "channels", "channels")


class Tags(NamedTuple):
    """What sounds somewhere in a clip."""

    embedding: Float[Array, "batch width"]
    probabilities: Float[Array, "batch classes"]


class Events(NamedTuple):
    """What sounds when; a segment lasts 0.32 s, a frame 10 ms."""

    embedding: Float[Array, "batch segments width"]
    segments: Float[Array, "batch segments classes"]
    frames: Float[Array, "batch frames classes"]
    clip: Float[Array, "batch classes"]


class Cnn14(nnx.Module):
    """One trunk under two heads of the same parameters: `tag` (Cnn14), `detect` (DecisionLevelMax).

    Which of them is good depends on the checkpoint. All results are float32.
    """

    def __init__(self, config: Cnn14Config, *, rngs: nnx.Rngs):
        self.config = config
        self.norm = FrozenBatchNorm(config.mels, eps=config.norm_eps)
        sizes = zip((1, *config.widths), config.widths, strict=False)
        last = len(config.widths) - 1
        self.blocks = nnx.List(
            [
                ConvBlock(one, two, pool=number < last, config=config, rngs=rngs)
                for number, (one, two) in enumerate(sizes)
            ]
        )
        dense = functools.partial(linear, dtype=config.dtype, bias=True, rngs=rngs)
        self.embed = dense(config.width, config.width, ("embed", "mlp"))
        self.classify = dense(config.width, config.classes, ("embed", "channels"))

    def log_mel(self, wave: Float[Array, "batch samples"]) -> Float[Array, "batch frames mels"]:
        """Of a wave at the config's rate; UserError for less than one segment."""
        config = self.config
        if wave.shape[1] < config.shortest:
            raise UserError(
                f"{wave.shape[1]} samples at {config.sample_rate} Hz are too few for Cnn14: at "
                f"least {config.shortest} are needed"
            )
        filters = front_end.mel_filters(
            config.sample_rate, config.window, config.mels, config.low_hz, config.high_hz
        )
        return front_end.log_mel(wave.astype(jnp.float32), config.window, config.hop, filters)

    def trunk(self, log_mel: Float[Array, "batch frames mels"]) -> Float[Array, "batch segments w"]:
        x = self.norm(log_mel)[..., None]
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=2)

    def tag(self, trunk: Float[Array, "batch segments width"]) -> Tags:
        """Sounds of the whole clip."""
        embedding = self._embedding(jnp.max(trunk, axis=1) + jnp.mean(trunk, axis=1))
        return Tags(embedding, self._probabilities(embedding))

    def detect(self, trunk: Float[Array, "batch segments width"], frames: int) -> Events:
        """Sounds of every segment, repeated for `frames` frames, and the loudest of each."""
        embedding = self.segment_embedding(trunk)
        segments = self._probabilities(embedding)
        place = jnp.arange(frames) // self.config.frames_per_segment
        repeated = segments[:, jnp.minimum(place, segments.shape[1] - 1)]
        return Events(embedding, segments, repeated, jnp.max(segments, axis=1))

    def segment_embedding(
        self, trunk: Float[Array, "batch segments width"]
    ) -> Float[Array, "batch segments width"]:
        """Maximum plus mean over three segments; the mean counts the zeros at both ends."""
        highest = nnx.max_pool(trunk, (3,), padding="SAME")
        around = jnp.pad(trunk, ((0, 0), (1, 1), (0, 0)))
        mean = (around[:, :-2] + around[:, 1:-1] + around[:, 2:]) / 3
        return self._embedding(highest + mean)

    def features(
        self, wave: Float[Array, "batch samples"], sample_rate: int, *, tensor: str = "embedding"
    ) -> Float[Array, "batch segments width"]:
        """What the alignment loss aims at, of waves at any rate: embedding or trunk of segments."""
        wave = front_end.resample(wave.astype(jnp.float32), sample_rate, self.config.sample_rate)
        trunk = self.trunk(self.log_mel(wave))
        return trunk if tensor == "trunk" else self.segment_embedding(trunk)

    def _embedding(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        return nnx.relu(self.embed(x)).astype(jnp.float32)

    def _probabilities(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows classes"]:
        return nnx.sigmoid(self.classify(x).astype(jnp.float32))
