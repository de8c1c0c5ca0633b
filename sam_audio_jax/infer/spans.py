"""From texts to the spans in which their sounds are heard (docs/prompt_encoders.md, "Spans").

predictor, name = load_span_predictor("pe-a-frame-large")
anchors = predict_spans(predictor, tokenizer_for(name), latents, valid, ["dog barking"])
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from sam_audio_jax.codec.codec import pad_to_hop
from sam_audio_jax.encoders.span_predictor import SpanPredictor
from sam_audio_jax.encoders.tokenizer import Tokenizer
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.buckets import pad_tokens
from sam_audio_jax.scorers.activity import TimeRange, runs
from sam_audio_jax.separator.prompts import Span, valid_frames

THRESHOLD = 0.3  # the reference's
LEAST_TOKENS = 16  # texts are padded to this or a larger power of two
BELOW = 1 - 2.0**-48  # a few roundings of float64: rounded up it is the frame, never the next one

Latents = Float[Array, "batch frames channels"] | Float[np.ndarray, "batch frames channels"]


def predict_spans(
    predictor: SpanPredictor,
    tokenizer: Tokenizer,
    latents: Latents,
    valid: Bool[np.ndarray, "batch frames"] | Bool[Array, "batch frames"] | None,
    texts: Sequence[str],
    threshold: float = THRESHOLD,
    *,
    padding: bool = False,
    exact: bool = False,
) -> list[list[Span]]:
    """For each item its anchors `("+", start, end)` in seconds, in time order, perhaps none.

    `latents` are the mean of the codec's posterior, before any normalisation (`Codec.moments`);
    `valid` is True at an item's own frames (None: all are); texts are taken as they are.
    Spans end with their item. `padding=True` reports those beyond it too: the reference does, where
    they reach the separator as anchors of padded frames. `exact`: see `find_spans`.
    The network is compiled once for each shape of the latents and power of two of the tokens.
    """
    probabilities = span_probabilities(predictor, tokenizer, latents, valid, texts)
    inside = None if padding or valid is None else np.asarray(valid)
    config = predictor.config
    found = find_spans(
        probabilities,
        threshold,
        hop=config.hop,
        sample_rate=config.sample_rate,
        valid=inside,
        exact=exact,
    )
    return [to_anchors(spans) for spans in found]


def span_probabilities(
    predictor: SpanPredictor,
    tokenizer: Tokenizer,
    latents: Latents,
    valid: Bool[np.ndarray, "batch frames"] | Bool[Array, "batch frames"] | None,
    texts: Sequence[str],
) -> Float[np.ndarray, "batch frames"]:
    """How likely each frame of item b holds the sound of text b; see `predict_spans`."""
    config = predictor.config
    if latents.shape[-1] != config.channels:
        raise UserError(
            f"the codec has {latents.shape[-1]} latent channels, "
            f"the span predictor {config.channels}"
        )
    if len(texts) != len(latents):
        raise UserError(f"{len(texts)} texts were given with {len(latents)} items")
    ids, mask = tokenizer(list(texts))
    if ids.max() >= config.text.vocab_size:
        raise UserError(
            f"the tokenizer gave id {ids.max()}, but the span predictor's text model knows "
            f"{config.text.vocab_size}: it belongs to another model"
        )
    ids, mask = pad_tokens(ids, mask, least=LEAST_TOKENS)
    graph, state = nnx.split(predictor)
    return np.asarray(
        _probabilities(
            graph,
            nnx.as_pure(state),
            jnp.asarray(latents),
            ids,
            mask,
            None if valid is None else jnp.asarray(valid),
        )
    )


@functools.partial(jax.jit, static_argnames="graph")
def _probabilities(
    graph: nnx.GraphDef,
    state: PyTree,
    latents: Float[Array, "batch frames channels"],
    ids: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    valid: Bool[Array, "batch frames"] | None,
) -> Float[Array, "batch frames"]:
    return nnx.merge(graph, state)(latents, ids, mask, valid=valid)


def find_spans(
    probabilities: Float[np.ndarray, "batch frames"],
    threshold: float = THRESHOLD,
    *,
    hop: int,
    sample_rate: int,
    valid: Bool[np.ndarray, "batch frames"] | None = None,
    exact: bool = False,
) -> list[list[TimeRange]]:
    """The maximal runs of frames above the threshold, in seconds; nothing is smoothed or merged.

    Without `valid` frames beyond an item's end count too. Seconds are rounded to float32 as in the
    reference, of which nearly half lie a hair above their frame: as anchors, whose bounds are
    rounded up, they start and end one frame late. `exact` ones keep their frames.
    """
    on = probabilities > np.float32(threshold)
    on = on if valid is None else on & valid

    def seconds(frame: int) -> float:
        if exact:
            return frame * hop / sample_rate * BELOW
        return float(np.float32(frame * hop) / np.float32(sample_rate))

    return [[(seconds(start), seconds(end)) for start, end in runs(row)] for row in on]


def to_anchors(spans: Sequence[TimeRange]) -> list[Span]:
    """Prompts that say: it sounds here."""
    return [("+", start, end) for start, end in spans]


def wave_latents(
    predictor: SpanPredictor, waves: Sequence[Float[np.ndarray, " _samples"]]
) -> tuple[Float[Array, "batch frames channels"], Bool[np.ndarray, "batch frames"]]:
    """Latents and valid frames of mono waves, for a predictor that is used by itself.

    It must hold its codec encoder. Each wave is reflected to whole frames, then padded with zeros.
    """
    hop = predictor.config.hop
    whole = [pad_to_hop(wave, hop) for wave in waves]
    batch = np.zeros((len(whole), max(map(len, whole))), np.float32)
    for row, wave in zip(batch, whole, strict=True):
        row[: len(wave)] = wave
    graph, state = nnx.split(predictor)
    latents = _latents(graph, nnx.as_pure(state), jnp.asarray(batch))
    return latents, valid_frames([len(wave) // hop for wave in whole])


@functools.partial(jax.jit, static_argnames="graph")
def _latents(
    graph: nnx.GraphDef, state: PyTree, wave: Float[Array, "batch samples"]
) -> Float[Array, "batch frames channels"]:
    return nnx.merge(graph, state).latents(wave)
