"""Audiobox Aesthetics: how enjoyable, useful, complex and well produced a recording is.

Paper: arXiv 2502.05139. Arithmetic: docs/scoring.md, "Aesthetics".
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Depth, Finite, Positive, SampleRate, Size
from sam_audio_jax.encoders.wavlm import Hidden, WavlmConfig, WavlmEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import LayerNorm
from sam_audio_jax.scorers.pieces import PieceShape, WavePiece, each_candidate, run_pieces
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView

# Content enjoyment, content usefulness, production complexity, production quality.
AXES = ("CE", "CU", "PC", "PQ")
PerAxis = tuple[Finite, Finite, Finite, Finite]
WINDOWS = 6  # in one batch of the scorer, for each shard: a minute


@dataclasses.dataclass(frozen=True, kw_only=True)
class AestheticsConfig(Checked, where="aesthetics"):
    """Sizes of encoder and heads; the defaults are those of the released checkpoint."""

    wavlm: WavlmConfig = dataclasses.field(default_factory=WavlmConfig)
    sample_rate: SampleRate = 16_000
    window: Size = 160_000  # samples that are scored at once
    head_layers: Depth = 5
    mean: PerAxis = (5.06865, 5.73633, 3.18591, 6.57505)  # of the ratings in training, by `AXES`
    deviation: tuple[Positive, Positive, Positive, Positive] = (1.93029, 1.75669, 1.86637, 1.51466)
    norm_eps: Positive = 1e-5

    def __post_init__(self):
        super().__post_init__()
        if self.window < self.wavlm.shortest:
            raise UserError(
                f"aesthetics.window={self.window} must be at least {self.wavlm.shortest}, the "
                "samples of one frame of WavLM"
            )


class AxisHead(nnx.Module):
    """One axis: a weighted sum of the encoder's layers, then a perceptron."""

    def __init__(self, config: AestheticsConfig, *, rngs: nnx.Rngs):
        width, dtype = config.wavlm.width, config.wavlm.dtype
        self.layer_weights = nnx.Param(jnp.ones(config.wavlm.depth + 1), **parallel.axes("vector"))
        dense = functools.partial(linear, width, dtype=dtype, bias=True, rngs=rngs)
        hidden = range(config.head_layers - 1)
        self.layers = nnx.List([dense(width, ("embed", "mlp")) for _ in hidden])
        self.norms = nnx.List([LayerNorm(width, eps=config.norm_eps, rngs=rngs) for _ in hidden])
        self.out = dense(1, ("embed", "channels"))

    def __call__(self, states: Float[Array, "layers batch width"]) -> Float[Array, " batch"]:
        weights = jax.nn.softmax(self.layer_weights[...])
        x = jnp.einsum("l,lbw->bw", weights, states, precision="highest")
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.gelu(norm(layer(x)), approximate=False)
        return self.out(x)[:, 0].astype(jnp.float32)


class Aesthetics(nnx.Module):
    """Scores windows of sound on the four axes, about 1 to 10."""

    def __init__(self, config: AestheticsConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.wavlm = WavlmEncoder(config.wavlm, rngs=rngs)
        self.heads = nnx.List([AxisHead(config, rngs=rngs) for _ in AXES])

    def raw(
        self, wave: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> Float[Array, "batch axes"]:
        """What the heads give, before mean and deviation of the ratings.

        `wave` is at `config.sample_rate`, and its first `lengths` samples are sound. It is not
        brought to any level.
        """
        valid = self.wavlm.valid_frames(lengths, wave.shape[1])[:, :, None]
        count = jnp.maximum(jnp.sum(valid, axis=1), 1)

        def pool(state: Hidden) -> Float[Array, "batch width"]:
            return jnp.sum(state.astype(jnp.float32), axis=1, where=valid) / count

        # The mean over frames commutes with the heads' sums over layers, and is far smaller.
        pooled = self.wavlm.states(wave, lengths, pool)
        return jnp.stack([head(pooled) for head in self.heads], axis=-1)

    def score(
        self, wave: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> Float[Array, "batch axes"]:
        """Scores of whole windows on `AXES`; arguments as those of `raw`."""
        mean, deviation = (
            np.asarray(x, np.float32) for x in (self.config.mean, self.config.deviation)
        )
        return self.raw(wave, lengths) * deviation + mean


def score_pieces(
    network: Aesthetics, source: Array, skipped: Array, lengths: Array, *, shape: PieceShape
) -> Float[Array, "batch axes"]:
    """The scores of pieces whose sources `PieceShape.cut` returned."""
    return network.score(shape.resample(source, skipped, lengths), lengths)


class AestheticsScorer:
    """Scores of candidates by themselves, on the axes of `AXES`; no prompt is read.

    A recording is scored in windows that do not overlap; the last one is filled up with silence.
    Its score is the mean over its windows, each weighted by the samples in it.
    """

    needs: Needs = "nothing"
    axes = AXES

    def __init__(self, network: Aesthetics, mesh: Mesh | None = None, *, windows: int = WINDOWS):
        """`windows` are scored at once on each shard of a batch."""
        self.config, self.windows = network.config, windows
        self.compiled = Compiled(network, mesh)

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """As `Scorer.score`. Raises `UserError` for a recording without samples."""
        waves = each_candidate(candidates, lengths)
        scores = self.score_waves(waves, sample_rate).reshape(*candidates.shape[:2], len(AXES))
        return dict(zip(AXES, np.moveaxis(scores, -1, 0), strict=True))

    def score_waves(
        self, waves: Sequence[Float[np.ndarray, " _"]], sample_rate: int
    ) -> Float32[np.ndarray, "waves axes"]:
        """Scores of mono recordings of any lengths, all at `sample_rate`."""
        window = self.config.window
        shape = PieceShape(size=window, from_rate=sample_rate, to_rate=self.config.sample_rate)
        pieces = []
        for row, wave in enumerate(waves):
            length = shape.resampled_length(len(wave))
            if not length:
                raise UserError("a recording without samples has no aesthetics scores")
            starts = range(0, length, window)
            pieces += [WavePiece(row, start, min(window, length - start)) for start in starts]
        scores = run_pieces(self.compiled, score_pieces, waves, pieces, shape, batch=self.windows)
        totals, weights = np.zeros((len(waves), len(AXES))), np.zeros((len(waves), 1))
        for piece, score in zip(pieces, scores.astype(np.float64), strict=True):
            totals[piece.row] += piece.length * score
            weights[piece.row] += piece.length
        return (totals / weights).astype(np.float32)
