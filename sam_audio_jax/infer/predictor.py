"""The span predictor beside a model, loaded when it is first asked.

See docs/prompt_encoders.md, "Spans".
"""

import functools
import math
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.convert.pe_a_frame import load_span_predictor
from sam_audio_jax.encoders.span_predictor import SpanPredictor
from sam_audio_jax.encoders.tokenizer import Tokenizer, tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.spans import predict_spans
from sam_audio_jax.separator.prompts import Span

Source = tuple[SpanPredictor, Tokenizer] | str | os.PathLike | None  # with its tokenizer, or where


class SpanFinder:
    """Finds the spans of a text's sound in the latents of a model's codec."""

    def __init__(self, source: Source, codec: CodecConfig):
        self.source, self.codec = source, codec

    def require(self) -> None:
        """UserError if there is no predictor; one that lies in a file is not read yet."""
        if self.source is None:
            raise UserError(
                "this model has no span predictor: give span_predictor=NAME_OR_FOLDER to it, "
                "or spans instead of predict_spans"
            )

    @functools.cached_property
    def predictor(self) -> tuple[SpanPredictor, Tokenizer]:
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
        """`latents` as the separator sees them; `padding`: spans beyond an item's end as well."""
        unscaled = latents * np.float32(self.codec.std) + np.float32(self.codec.mean)
        found = predict_spans(*self.predictor, unscaled, valid, texts, padding=padding)
        return [tuple(spans) for spans in found]
