"""Predicts in which spans the sound of a text is audible (docs/prompt_encoders.md, "Spans").

`SpanFinder` is the predictor that belongs to a model; the functions serve a predictor alone:

predictor, name = load_span_predictor("pe-a-frame-large")
spans = predict_spans(predictor, tokenizer_for(name), latents, valid, ["dog barking"])
"""

import functools
import math
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.convert.pe_a_frame import load_span_predictor
from sam_audio_jax.encoders.span_predictor import SpanPredictor
from sam_audio_jax.encoders.tokenizer import Tokenizer, pad_tokens, tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers.activity import TimeRange, runs
from sam_audio_jax.separator.prompts import Span

THRESHOLD = 0.3  # the reference's
LEAST_TOKENS = 16  # texts are padded to this or a larger power of two
BELOW = 1 - 2.0**-48  # a few roundings of float64: rounded up it is the frame, never the next one

Latents = Float[Array, "batch frames channels"] | Float[np.ndarray, "batch frames channels"]
Source = tuple[SpanPredictor, Tokenizer] | str | os.PathLike | None  # loaded, or its checkpoint


class SpanFinder:
    """The span predictor of a model, loaded when it is first needed."""

    def __init__(self, source: Source, codec: CodecConfig):
        self.source, self.codec = source, codec

    def require(self) -> None:
        """Raises `UserError` without a predictor; does not load one."""
        if self.source is None:
            raise UserError(
                "this model has no span predictor: give span_predictor=NAME_OR_FOLDER to it, "
                "or spans instead of predict_spans"
            )

    @functools.cached_property
    def predictor(self) -> tuple[SpanPredictor, Tokenizer]:
        """The network and its tokenizer; raises `UserError` if its frames are not the codec's."""
        self.require()
        if isinstance(self.source, tuple):
            predictor, tokenizer = self.source
        else:
            predictor, name = load_span_predictor(str(self.source))
            tokenizer = tokenizer_for(name)
        rate = predictor.config.sample_rate / predictor.config.hop
        if not math.isclose(rate, self.codec.frame_rate):
            raise UserError(
                f"the span predictor has {rate:g} frames a second, "
                f"the codec {self.codec.frame_rate:g}"
            )
        return predictor, tokenizer

    def __call__(
        self,
        latents: Float[np.ndarray, "batch frames channels"],
        valid: Bool[np.ndarray, "batch frames"],
        texts: Sequence[str],
        *,
        padding: bool,
    ) -> list[tuple[Span, ...]]:
        """Returns the spans of each item.

        `latents` are normalised as the separator receives them; with `padding`, spans may lie
        beyond an item's end.
        """
        unscaled = latents * np.float32(self.codec.std) + np.float32(self.codec.mean)
        spans = predict_spans(*self.predictor, unscaled, valid, texts, padding=padding)
        return [tuple(row) for row in spans]

    def in_pieces(
        self, latents: Float[np.ndarray, "frames channels"], text: str, longest: int
    ) -> tuple[Span, ...]:
        """Returns the spans of one recording, cut into equal pieces of at most `longest` frames.

        Equal ones, since in a rest of a few frames there is nothing to find.
        """
        count = -(-len(latents) // longest)
        found: list[Span] = []
        for piece in np.array_split(np.arange(len(latents)), count):
            (spans,) = self(
                latents[None, piece], np.ones((1, len(piece)), bool), [text], padding=False
            )
            shift = int(piece[0]) / self.codec.frame_rate
            found += [(token, start + shift, end + shift) for token, start, end in spans]
        return tuple(found)


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
    """Returns the spans `("+", start, end)` of each item in seconds, in time order, perhaps none.

    `latents` are the mean of the codec's posterior, before any normalisation (`Codec.moments`);
    `valid` is True at an item's own frames (None: all are); texts are used as they are.
    Spans end with their item. `padding=True` reports those beyond it too: the reference does, where
    they reach the separator as anchors of padded frames. `exact`: see `find_spans`.
    The network is compiled once for each shape of the latents and power of two of the tokens.
    """
    probabilities = span_probabilities(predictor, tokenizer, latents, valid, texts)
    inside = None if padding or valid is None else np.asarray(valid)
    config = predictor.config
    ranges = find_spans(
        probabilities,
        threshold,
        hop=config.hop,
        sample_rate=config.sample_rate,
        valid=inside,
        exact=exact,
    )
    return [positive_spans(row) for row in ranges]


def span_probabilities(
    predictor: SpanPredictor,
    tokenizer: Tokenizer,
    latents: Latents,
    valid: Bool[np.ndarray, "batch frames"] | Bool[Array, "batch frames"] | None,
    texts: Sequence[str],
) -> Float[np.ndarray, "batch frames"]:
    """Returns how likely each frame of item b holds the sound of text b; see `predict_spans`.

    Raises `UserError` for latents, texts or tokens that do not fit the predictor.
    """
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
    compiled = Compiled(predictor)
    return np.asarray(compiled(_probabilities, latents, ids, mask, valid))


def _probabilities(
    predictor: SpanPredictor,
    latents: Float[Array, "batch frames channels"],
    ids: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
    valid: Bool[Array, "batch frames"] | None,
) -> Float[Array, "batch frames"]:
    return predictor(latents, ids, mask, valid=valid)


def find_spans(
    probabilities: Float[np.ndarray, "batch frames"],
    threshold: float = THRESHOLD,
    *,
    hop: int,
    sample_rate: int,
    valid: Bool[np.ndarray, "batch frames"] | None = None,
    exact: bool = False,
) -> list[list[TimeRange]]:
    """Returns the maximal runs of frames above the threshold, in seconds; none is merged.

    Without `valid`, frames beyond an item's end count too. Seconds are rounded to float32 as in the
    reference, of which nearly half lie a little above their frame: as anchors, whose bounds are
    rounded up, they start and end one frame late. `exact` ones keep their frames.
    """
    on = probabilities > np.float32(threshold)
    on = on if valid is None else on & valid

    def seconds(frame: int) -> float:
        if exact:
            return frame * hop / sample_rate * BELOW
        return float(np.float32(frame * hop) / np.float32(sample_rate))

    return [[(seconds(start), seconds(end)) for start, end in runs(row)] for row in on]


def positive_spans(ranges: Sequence[TimeRange]) -> list[Span]:
    """Returns prompts which say that it sounds in these ranges."""
    return [("+", start, end) for start, end in ranges]
