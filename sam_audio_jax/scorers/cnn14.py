"""PANNs' Cnn14, a tagger of 527 sound classes: teacher of the representation alignment.

Paper: arXiv 1912.10211. Arithmetic: docs/scoring.md, "Cnn14". The network is frozen: the running
statistics of its batch norms are stored as parameters, and nothing here updates them.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel
from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.bounds import Checked, NonNegative, Positive, SampleRate, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import FrozenBatchNorm
from sam_audio_jax.scorers import front_end

HE = jax.nn.initializers.he_uniform()
Image = Float[Array, "batch frames bins channels"]
_Output = Float[Array, "batch frames_out bins_out channels_out"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cnn14Config(Checked, where="cnn14"):
    """Front end and sizes; the defaults are those of the published checkpoints."""

    sample_rate: SampleRate = 32_000
    window: Size = 1024  # samples
    hop: Size = 320  # samples between frames
    mels: Size = 64
    low_hz: NonNegative = 50.0
    high_hz: Positive = 14_000.0
    widths: tuple[Size, ...] = (64, 128, 256, 512, 1024, 2048)  # of the convolutional blocks
    classes: Size = 527
    norm_eps: NonNegative = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # of convolutions and matrix products

    def __post_init__(self):
        super().__post_init__()
        if not self.widths:
            raise UserError("cnn14.widths is empty: a network has at least one block")
        if self.mels < self.frames_per_segment:
            raise UserError(
                f"cnn14.mels={self.mels} must be at least {self.frames_per_segment}, as it is "
                f"halved by all but one of {len(self.widths)} blocks"
            )

    @property
    def width(self) -> int:
        """Channels of the trunk's output and of the embeddings."""
        return self.widths[-1]

    @property
    def frames_per_segment(self) -> int:
        """Log-mel frames that the pooling reduces to one segment."""
        return 2 ** (len(self.widths) - 1)

    @property
    def segment_s(self) -> float:
        """Seconds from one segment to the next."""
        return self.frames_per_segment * self.hop / self.sample_rate

    @property
    def shortest(self) -> int:
        """Samples of the shortest wave that fills a segment."""
        return max((self.frames_per_segment - 1) * self.hop, self.window // 2 + 1)


class ConvNormRelu(nnx.Module):
    """A zero-padded 3 x 3 convolution without bias, then batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, eps: float, dtype: str, rngs: nnx.Rngs):
        self.dtype = dtype
        self.kernel = nnx.Param(
            HE(rngs.params(), (3, 3, inputs, outputs)),
            **parallel.axes("window", "window", "channels", "embed"),
        )
        self.norm = FrozenBatchNorm(outputs, eps=eps)

    def __call__(self, x: Image) -> _Output:
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return nnx.relu(self.norm(y))


class ConvBlock(nnx.Module):
    """Two convolutions, then 2 x 2 average pooling, except in the last block."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool, config: Cnn14Config, rngs):
        conv = functools.partial(ConvNormRelu, eps=config.norm_eps, dtype=config.dtype, rngs=rngs)
        self.first = conv(inputs, outputs)
        self.second = conv(outputs, outputs)
        self.pool = pool

    def __call__(self, x: Image) -> _Output:
        x = self.second(self.first(x))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2)) if self.pool else x
        return parallel.constrain(x, "batch", "frames", "channels", "channels")


class Tags(NamedTuple):
    """Sound classes of a whole clip."""

    embedding: Float[Array, "batch width"]
    probabilities: Float[Array, "batch classes"]


class Events(NamedTuple):
    """Sound classes over time; in the published sizes a segment is 0.32 s, a frame 10 ms."""

    embedding: Float[Array, "batch segments width"]
    segments: Float[Array, "batch segments classes"]
    frames: Float[Array, "batch frames classes"]
    clip: Float[Array, "batch classes"]


class Cnn14(nnx.Module):
    """One trunk and two heads that share parameters: `tag` (Cnn14) and `detect` (DecisionLevelMax).

    A checkpoint is trained for one of the two heads. All results are float32.
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
        """Log-mel spectrogram of a wave at `config.sample_rate`.

        Raises UserError for a wave shorter than one segment.
        """
        config = self.config
        if wave.shape[1] < config.shortest:
            raise UserError(
                f"{wave.shape[1]} samples at {config.sample_rate} Hz are too few for Cnn14: at "
                f"least {config.shortest} are needed"
            )
        filters = mel_filters(
            config.sample_rate, config.window, config.mels, config.low_hz, config.high_hz
        )
        return front_end.log_mel(wave.astype(jnp.float32), config.window, config.hop, filters)

    def trunk(self, log_mel: Float[Array, "batch frames mels"]) -> Float[Array, "batch segments w"]:
        """The output of the last block, averaged over frequency."""
        x = self.norm(log_mel)[..., None]
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=2)

    def tag(self, trunk: Float[Array, "batch segments width"]) -> Tags:
        """Classifies the whole clip."""
        embedding = self._embedding(jnp.max(trunk, axis=1) + jnp.mean(trunk, axis=1))
        return Tags(embedding, self._probabilities(embedding))

    def detect(self, trunk: Float[Array, "batch segments width"], frames: int) -> Events:
        """Classifies segments, `frames` frames (each by its segment) and the clip (by maxima)."""
        embedding = self.segment_embedding(trunk)
        segments = self._probabilities(embedding)
        segment = jnp.arange(frames) // self.config.frames_per_segment
        repeated = segments[:, jnp.minimum(segment, segments.shape[1] - 1)]
        return Events(embedding, segments, repeated, jnp.max(segments, axis=1))

    def segment_embedding(
        self, trunk: Float[Array, "batch segments width"]
    ) -> Float[Array, "batch segments width"]:
        """Embeds each segment: maximum plus mean over it and its neighbours.

        As in the reference, the mean includes zero padding at both ends of the clip.
        """
        highest = nnx.max_pool(trunk, (3,), padding="SAME")
        padded = jnp.pad(trunk, ((0, 0), (1, 1), (0, 0)))
        mean = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
        return self._embedding(highest + mean)

    def features(
        self,
        wave: Float[Array, "batch samples"],
        sample_rate: int,
        *,
        tensor: Literal["embedding", "trunk"] = "embedding",
    ) -> Float[Array, "batch segments width"]:
        """Teacher features for the alignment loss, from waves at any sample rate.

        `tensor` chooses the segments' "embedding" or the "trunk" before it.
        """
        wave = front_end.resample(wave.astype(jnp.float32), sample_rate, self.config.sample_rate)
        trunk = self.trunk(self.log_mel(wave))
        return trunk if tensor == "trunk" else self.segment_embedding(trunk)

    def _embedding(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        return nnx.relu(self.embed(x)).astype(jnp.float32)

    def _probabilities(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows classes"]:
        return nnx.sigmoid(self.classify(x).astype(jnp.float32))
