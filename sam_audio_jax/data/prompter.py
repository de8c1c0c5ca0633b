"""The text and the spans that an example is prompted with."""

import functools
from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Bool, Float, Int

from sam_audio_jax.data import energy, span_prompts, text
from sam_audio_jax.data.config import PromptConfig
from sam_audio_jax.data.wordings import reworded
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.separator.prompts import Span, frame_anchors

LARGEST_OVERLAP = 0.7  # of activities; above it spans alone do not distinguish target and residual
KEPT_TEXTS = 20_000  # whose tokens are kept
JITTER_SHARE = 0.5  # examples whose spans are jittered

Example = dict[str, np.ndarray]
_Tokens = tuple[Int[np.ndarray, "1 tokens"], Bool[np.ndarray, "1 tokens"]]


@functools.cache
def _tokenizer(name: str) -> Callable[[str, int], _Tokens]:
    tokenizer = tokenizer_for(name, normalizes=True)
    kept = functools.lru_cache(maxsize=KEPT_TEXTS)
    return kept(lambda phrase, length: tokenizer([phrase], length))


def tokenize(name: str, phrase: str, length: int) -> _Tokens:
    """Ids and mask of one text as a batch has them; tokenizers and texts are kept."""
    return _tokenizer(name)(phrase, length)


class Prompter:
    """Draws the prompts of an example; all randomness comes from the generator of a call."""

    def __init__(self, config: PromptConfig, sample_rate: int, hop: int):
        self.config, self.sample_rate, self.hop = config, sample_rate, hop
        self.frame_rate = sample_rate / hop

    def draw(
        self,
        texts: tuple[str, ...],
        target: Bool[np.ndarray, " frames"],
        residual: Bool[np.ndarray, " frames"],
        size: int,
        rng: np.random.Generator,
        others: Collection[str] = (),
    ) -> Example:
        """Prompts for the first `size` frames; frames after them are padding.

        `texts` are phrases for the target, finest first; without any there are always spans.
        `target` and `residual` say in which frames either sounds; `others` are phrases that hold
        for the residual. Returns `valid`, `text_ids`, `text_mask` and `anchors` with the shapes of
        `data/examples.py`.
        """
        config, frames = self.config, len(target)
        target, residual = target[:size], residual[:size]
        spans = []
        if rng.random() < config.span_share or not texts:
            spans = self._spans(target, size, rng)
        spans_suffice = bool(spans) and energy.overlap(target, residual) < LARGEST_OVERLAP
        may_drop = spans_suffice or config.drop_any_text
        dropped = may_drop and rng.random() < config.text_dropout
        phrase = self._phrase(texts, others, rng) if texts and not dropped else ""
        return self._prompts(phrase, spans, size, frames)

    def draw_absent(
        self,
        texts: tuple[str, ...],
        present: Collection[str],
        size: int,
        frames: int,
        rng: np.random.Generator,
    ) -> Example:
        """Prompts by the text of a sound that is not there: without spans, which it has none of.

        `present` are phrases that hold for the sounds of the mixture.
        """
        return self._prompts(self._phrase(texts, present, rng), [], size, frames)

    def _phrase(
        self, texts: tuple[str, ...], others: Collection[str], rng: np.random.Generator
    ) -> str:
        """One of the texts, or other words for it."""
        phrase, share = (
            text.choose(texts, self.config.caption_share, rng),
            self.config.wording_share,
        )
        return reworded(phrase, others, rng) if share and rng.random() < share else phrase

    def _prompts(self, phrase: str, spans: list[Span], size: int, frames: int) -> Example:
        ids, mask = tokenize(self.config.tokenizer, phrase, self.config.text_tokens)
        return {
            "valid": np.arange(frames) < size,
            "text_ids": ids[0],
            "text_mask": mask[0],
            "anchors": frame_anchors(
                spans, 0, frames, sample_rate=self.sample_rate, hop=self.hop, size=size
            ),
        }

    def video(
        self, features: Float[np.ndarray, "frames width"], rng: np.random.Generator
    ) -> Example:
        """The batch's `video`: the features, or zeros in their place where they are dropped."""
        dropped = rng.random() < self.config.video_dropout
        return {"video": np.zeros_like(features) if dropped else features}

    def _spans(
        self, active: Bool[np.ndarray, " frames"], size: int, rng: np.random.Generator
    ) -> list[Span]:
        """Spans of the sounds, now and then also of the silences or not of all sounds."""
        config = self.config
        plus, minus = span_prompts.positive(active, self.frame_rate), []
        if rng.random() < config.negative_share:
            minus = span_prompts.negative(active, self.frame_rate)
        elif len(plus) > 1 and rng.random() < config.subset_share:
            kept = rng.choice(len(plus), int(rng.integers(1, len(plus))), replace=False)
            plus = [plus[number] for number in sorted(kept)]
        spans = span_prompts.merged(plus, config.max_spans)
        spans += minus[: config.max_spans - len(spans)]
        if config.jitter_s and rng.random() < JITTER_SHARE:
            seconds = size / self.frame_rate
            spans = span_prompts.jittered(spans, config.jitter_s, seconds, rng)
        return sorted(spans, key=lambda span: span[1])
