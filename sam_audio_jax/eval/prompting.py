"""Mixtures with the prompts that an evaluation gives them, and their separation in batches.

Each fixed mixture is separated once per kind of prompt with its own prompt, and once with that of
the residual where the residual is one nameable source: a model that follows its prompts separates
the two differently. Other wordings of a caption, and captions of sounds that are absent, are kinds
of prompt for themselves; docs/data.md, "Fixed mixtures", says which fields of a mixture they need.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax.data.wordings import article
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import FixedMixture, activity
from sam_audio_jax.eval.recorded import Recorded, Rendered, Wave
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.video_prompts import Clip
from sam_audio_jax.scorers.activity import TimeRange, overlap
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.prompts import Span
from sam_audio_jax.video.frames import Frames

PROMPTS = ("text", "span", "text+span")  # kinds of prompt
# Kinds that say the caption in another way, each compared with "text"; "" where there is no way.
WORDINGS: dict[str, Callable[[FixedMixture], str]] = {
    "capitals": lambda item: item.caption.upper(),
    "full-stop": lambda item: f"{item.caption[:1].upper()}{item.caption[1:]}.",
    "sound-of": lambda item: f"the sound of {article(item.caption)}{item.caption}",
    "alt-caption": lambda item: item.alt_caption,
}
VIDEO = "video"  # the kind of a masked video alone
ABSENT = "absent"  # the kind that asks for a sound which is not there
LIKE = "like"  # the kind of an example alone
EXAMPLES = (LIKE, "text+like")
KINDS = (*PROMPTS, *EXAMPLES, *WORDINGS, ABSENT)
SAME_ACTIVITY = 0.9  # overlap of target's and residual's spans above which spans name neither


@dataclasses.dataclass(frozen=True)
class PromptedMixture:
    """One separation to make; a `right` prompt is the mixture's own, another one the residual's."""

    recorded: Recorded
    kind: str  # of KINDS, or VIDEO
    right: bool
    text: str | None
    spans: tuple[TimeRange, ...] | None
    video: Clip | None = None
    like: str | None = None  # the file of an example

    @property
    def length(self) -> int:
        """The samples of the mixture."""
        return len(self.recorded.mixture)

    def positive_spans(self) -> list[tuple[str, float, float]] | None:
        """The spans as the model takes them, cut at the end of the mixture (lists round them)."""
        return None if self.spans is None else _positive(self.spans, self.recorded.item.seconds)

    @property
    def described(self) -> PromptView:
        """The target as a scorer is to know it: by all that the list says, prompted or not."""
        item = self.recorded.item
        spans = tuple(_positive(item.spans, item.seconds))
        video = None if self.video is None else self.video.at
        return PromptView(text=item.caption, spans=spans, video=video)


def check_spans(prompted: PromptedMixture) -> None:
    """Raises `UserError` for a mixture that is prompted by spans, all of them behind its end."""
    if prompted.spans is not None and not prompted.positive_spans():
        item = prompted.recorded.item
        raise UserError(f"{item.id} has no span that begins before its end at {item.seconds:g} s")


def _positive(ranges: Sequence[TimeRange], seconds: float) -> list[tuple[str, float, float]]:
    return [("+", start, min(end, seconds)) for start, end in ranges if start < seconds]


@dataclasses.dataclass(frozen=True)
class SolverChoice:
    """How all separations of an evaluation are made; None leaves a setting to the model.

    Raises `UserError` for a value that is not allowed.
    """

    method: str | None = None
    steps: int | None = None
    seed: int = 0
    candidates: int = 1  # solves, of which the best is kept
    predict_spans: bool = False  # for prompts without spans
    grid: str | None = None

    def __post_init__(self):
        SeparateOptions(**dataclasses.asdict(self))  # checks the values

    def sampler(self, default: SamplerConfig) -> SamplerConfig:
        """The solver's settings, those of `default`, the model's, where nothing is chosen."""
        options = SeparateOptions(method=self.method, steps=self.steps, grid=self.grid)
        return options.sampler(default)

    def predicts(self, kind: str) -> bool:
        """Whether spans are predicted for prompts of a kind: those that have a text and none."""
        return self.predict_spans and "span" not in kind and kind not in (VIDEO, LIKE)

    def arguments(self, kind: str) -> dict[str, Any]:
        """What differs from the defaults of `SAMAudio.separate`, for prompts of a kind."""
        chosen = {"method": self.method, "steps": self.steps, "grid": self.grid}
        chosen |= {"candidates": self.candidates if self.candidates > 1 else None}
        chosen |= {"predict_spans": self.predicts(kind) or None}
        return {name: value for name, value in chosen.items() if value is not None}

    def ranker(self, model: SAMAudio, kind: str) -> Scorer | None:
        """What ranks the candidates of prompts of a kind; None if there is only one.

        Its networks are loaded. Raises `UserError` where nothing can rank them.
        """
        if self.candidates == 1:
            return None
        text = "text" if "text" in kind or kind in WORDINGS or kind == ABSENT else ""
        spans = (("+", 0.0, 1.0),) if "span" in kind else ()
        view = PromptView(text=text, spans=spans, video=_no_frames if VIDEO in kind else None)
        rankers, name = model.pipeline.rankers, f"prompts by {kind}"
        return rankers.choose(view, name, predicts_spans=self.predicts(kind))


def _no_frames(times: Float[np.ndarray, " times"]) -> Iterator[Frames]:
    """Stands for a video where only its existence counts."""
    del times
    return iter(())


@dataclasses.dataclass(frozen=True)
class SeparatedMixture:
    """The generated stems of one prompted mixture, at its rate and length."""

    prompted: PromptedMixture
    target: Wave
    residual: Wave
    spans: tuple[Span, ...] = ()  # of the prompt, or predicted
    predicted: bool = False  # whether the spans are


def prompted_mixtures(
    mixtures: Sequence[Rendered[FixedMixture]], kinds: Sequence[str]
) -> tuple[list[PromptedMixture], list[str]]:
    """Returns the separations to make and the ids of mixtures whose sources share their spans.

    Spans alone cannot tell the two sources of such a mixture apart. Raises `UserError` for an
    unknown kind of prompt, and for one that no mixture has or that lacks what it is compared with.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"prompt {kind!r} must be one of {', '.join(KINDS)}")
        if kind in WORDINGS and "text" not in kinds:
            raise UserError(f"prompt {kind!r} is compared with 'text': name both")
        if kind not in PROMPTS and not any(_own(kind, one.item) for one in mixtures):
            raise UserError(f"no mixture has a prompt {kind!r}; see docs/data.md, 'Fixed mixtures'")
    prompted, alike = [], []
    for rendered in mixtures:
        item = rendered.item
        other = activity(rendered.residual, rendered.sample_rate) if item.other else ()
        distinct = bool(other) and overlap(item.spans, other).iou <= SAME_ACTIVITY
        if item.other and not distinct:
            alike.append(item.id)
        for kind in kinds:
            if kind in EXAMPLES:
                prompted += _by_examples(rendered, kind)
                continue
            if kind not in PROMPTS:
                if words := _own(kind, item):
                    prompted.append(PromptedMixture(rendered, kind, True, words, None))
                continue
            if kind != "text" and not item.spans:
                continue
            prompted.append(_prompted(rendered, kind, True, item.caption, item.spans))
            comparable = distinct if kind == "span" else kind == "text" or bool(other)
            if item.other and comparable:
                prompted.append(_prompted(rendered, kind, False, item.other, other))
    return prompted, alike


def _own(kind: str, item: FixedMixture) -> str:
    """The text of a wording or of an absent sound, the file of an example; "" for none."""
    if kind in EXAMPLES:
        return item.example
    return item.absent if kind == ABSENT else WORDINGS[kind](item)


def _by_examples(rendered: Rendered[FixedMixture], kind: str) -> Iterator[PromptedMixture]:
    """The mixture with the example of its target, and with that of a residual of one source."""
    item = rendered.item
    pairs = [(True, item.caption, item.example)] if item.example else []
    if pairs and item.other and item.other_example:
        pairs.append((False, item.other, item.other_example))
    for right, caption, example in pairs:
        text = caption if "text" in kind else None
        yield PromptedMixture(rendered, kind, right, text, None, like=example)


def _prompted(
    rendered: Rendered[FixedMixture],
    kind: str,
    right: bool,
    text: str,
    spans: tuple[TimeRange, ...],
) -> PromptedMixture:
    """One mixture with the parts of the prompt that its kind has."""
    return PromptedMixture(
        rendered,
        kind,
        right,
        text if "text" in kind else None,
        spans if "span" in kind else None,
    )


def separate_batch(
    model: SAMAudio, batch: Sequence[PromptedMixture], rows: int, solver: SolverChoice
) -> Iterator[SeparatedMixture]:
    """Yields the stems of each row of a batch, whose prompts are of one kind.

    The batch is filled up to `rows` with repetitions, so that each length compiles once.
    """
    filled = [batch[row % len(batch)] for row in range(rows)]
    others: dict[str, Any] = {}
    if any(one.like is not None for one in batch):
        others["like"] = [one.like for one in filled]
    if any(one.video is not None for one in batch):
        clips = [one.video for one in filled]
        others["video"] = [None if clip is None else clip.source for clip in clips]
        others["mask"] = [None if clip is None else clip.mask for clip in clips]
    with warnings.catch_warnings():
        # Notes on prompts that the evaluation chose, by numbers that nobody gave: scores say more.
        warnings.filterwarnings("ignore", message=r"item \d+: ", category=UserWarning)
        separated = model.separate(
            [one.recorded.mixture for one in filled],
            text=[one.text for one in filled],
            spans=[one.positive_spans() for one in filled],
            sample_rate=batch[0].recorded.sample_rate,
            seed=solver.seed,
            **others,
            **solver.arguments(batch[0].kind),
        )
    for one, stems in zip(batch, separated, strict=False):
        target, residual = fit(stems.target, one.length), fit(stems.residual, one.length)
        predicted = solver.predicts(one.kind) and one.spans is None
        yield SeparatedMixture(one, target, residual, stems.spans, predicted)


def fit(stem: Any, length: int) -> Wave:
    """The stem as mono float32 of that length: cut, or with zeros at the end."""
    wave = np.asarray(stem, np.float32).reshape(-1)[:length]
    return np.pad(wave, (0, length - len(wave)))
