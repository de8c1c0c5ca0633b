"""What a scorer is: it gives numbers to the candidates of a batch of recordings.

Networks and signal measures follow one protocol, so that re-ranking, evaluation and the filters of
pseudo-labels call each in the same way, with as many recordings as the devices take at once.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.activity import METRICS, ActivityConfig, span_score
from sam_audio_jax.separator.prompts import Span
from sam_audio_jax.video.frames import Frames

Needs = Literal["text", "spans", "video", "nothing"]
AxisScores = dict[str, Float[np.ndarray, "batch candidates"]]
WANTED = {"text": "a text", "spans": "'+' spans", "video": "a masked video"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptView:
    """The prompts of one recording, as a scorer sees them."""

    text: str = ""
    spans: tuple[Span, ...] = ()  # passed by the caller, or predicted from the text
    # Reads the frames of the masked video that are nearest to rising times in seconds, some at a
    # time. None: there is no video.
    video: Callable[[Float[np.ndarray, " times"]], Iterator[Frames]] | None = None

    @property
    def sounding(self) -> list[tuple[float, float]]:
        """Returns start and end, in seconds, of the "+" spans."""
        return [(start, end) for token, start, end in self.spans if token == "+"]

    def has(self, needed: Needs) -> bool:
        """Returns whether the kind of prompt that a scorer needs is there."""
        return {
            "text": bool(self.text),
            "spans": bool(self.sounding),
            "video": self.video is not None,
            "nothing": True,
        }[needed]


@runtime_checkable
class Scorer(Protocol):
    """Scores candidates: the larger a number, the better the candidate."""

    @property
    def needs(self) -> Needs:
        """The kind of prompt without which it cannot score."""
        ...

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of its scores; candidates are ranked by the first."""
        ...

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """Scores of all candidates, by the names of `axes`.

        Recordings are mono at `sample_rate`. What lies beyond `lengths` samples is padding of the
        batch and changes no score. Every prompt has what the scorer needs.
        """
        ...


def best(scores: Float[np.ndarray, "batch candidates"]) -> Int[np.ndarray, " batch"]:
    """The candidate of each item with the highest score, the first of equals."""
    return np.argmax(scores, axis=1)


def score_recordings(
    scorer: Scorer,
    mixtures: Sequence[Float[np.ndarray, " _"]],
    candidates: Sequence[Float[np.ndarray, "candidates _"]],
    sample_rate: int,
    prompts: Sequence[PromptView],
) -> dict[str, Any]:  # AxisScores; a caller's scorer may give other numbers
    """`Scorer.score` of recordings of any lengths, those of their candidates, as one batch."""
    lengths = np.array([waves.shape[-1] for waves in candidates])
    longest = int(lengths.max())
    recordings = [
        _padded(wave[:length], longest) for wave, length in zip(mixtures, lengths, strict=True)
    ]
    batch = np.stack([_padded(waves, longest) for waves in candidates])
    return scorer.score(np.stack(recordings), batch, lengths, sample_rate, prompts)


def _padded(wave: Float[np.ndarray, "... samples"], length: int) -> Float[np.ndarray, "... padded"]:
    """The wave with zeros behind its last sample, up to `length` samples."""
    return np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(0, length - wave.shape[-1])])


class SpanIoU:
    """How well a candidate sounds when the "+" spans say, and only then."""

    needs: Needs = "spans"

    def __init__(self, metric: str = "iou", config: ActivityConfig | None = None):
        """`metric`: "iou", "precision" or "recall"; `config`: what counts as sound."""
        if metric not in METRICS:
            raise UserError(f"metric={metric!r} is unknown; allowed: {', '.join(METRICS)}")
        self.metric, self.config = metric, config

    @property
    def at_any_level(self) -> bool:
        """Whether the level of a candidate does not count, but for its rounding to 16 bits."""
        return self.config is None or self.config.mode == "rel_to_max"

    @property
    def axes(self) -> tuple[str, ...]:
        """One score, named after the metric."""
        return (f"span_{self.metric}",)

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """Agreement of each candidate's sound activity with the spans; 0 where there are none."""
        rows = [
            [
                span_score(
                    wave[:length], sample_rate, view.spans, metric=self.metric, config=self.config
                )
                for wave in waves
            ]
            for waves, length, view in zip(candidates, lengths, prompts, strict=True)
        ]
        return {self.axes[0]: np.asarray(rows, np.float32)}
