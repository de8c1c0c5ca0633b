"""Fixed mixtures with the prompts that an evaluation gives them, and their separation in batches.

Each mixture is separated once per kind of prompt with its own prompt, and once with that of the
residual where the residual is one nameable source: a model that follows its prompts separates the
two differently. Other wordings of a caption, and captions of sounds that are absent, are kinds of
prompt for themselves; docs/data.md, "Fixed mixtures", says which fields of a mixture they need.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sam_audio_jax.data.wordings import article
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import FixedMixture, Rendered, Wave, activity
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.scorers.activity import TimeRange, overlap

PROMPTS = ("text", "span", "text+span")  # kinds of prompt
# Kinds that say the caption in another way, each compared with "text"; "" where there is no way.
WORDINGS: dict[str, Callable[[FixedMixture], str]] = {
    "capitals": lambda item: item.caption.upper(),
    "full-stop": lambda item: f"{item.caption[:1].upper()}{item.caption[1:]}.",
    "sound-of": lambda item: f"the sound of {article(item.caption)}{item.caption}",
    "alt-caption": lambda item: item.alt_caption,
}
ABSENT = "absent"  # the kind that asks for a sound which is not there
KINDS = (*PROMPTS, *WORDINGS, ABSENT)
SAME_ACTIVITY = 0.9  # overlap of target's and residual's spans above which spans name neither


@dataclasses.dataclass(frozen=True)
class PromptedMixture:
    """One separation to make; a `right` prompt is the mixture's own, another one the residual's."""

    rendered: Rendered
    kind: str  # of KINDS
    right: bool
    text: str | None
    spans: tuple[TimeRange, ...] | None

    @property
    def length(self) -> int:
        """The samples of the mixture."""
        return len(self.rendered.mixture)

    def positive_spans(self) -> list[tuple[str, float, float]] | None:
        """The spans as the model takes them, cut at the end of the mixture (lists round them)."""
        if self.spans is None:
            return None
        seconds = self.rendered.item.seconds
        return [("+", start, min(end, seconds)) for start, end in self.spans]


@dataclasses.dataclass(frozen=True)
class SolverChoice:
    """Settings of the solver; None leaves a setting to the model."""

    method: str | None = None
    steps: int | None = None
    seed: int = 0


def prompted_mixtures(
    mixtures: Sequence[Rendered], kinds: Sequence[str]
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
        if kind not in PROMPTS and not any(_words(kind, one.item) for one in mixtures):
            raise UserError(f"no mixture has a prompt {kind!r}; see docs/data.md, 'Fixed mixtures'")
    prompted, alike = [], []
    for rendered in mixtures:
        item = rendered.item
        other = activity(rendered.residual, rendered.sample_rate) if item.other else ()
        distinct = bool(other) and overlap(item.spans, other).iou <= SAME_ACTIVITY
        if item.other and not distinct:
            alike.append(item.id)
        for kind in kinds:
            if kind not in PROMPTS:
                if words := _words(kind, item):
                    prompted.append(PromptedMixture(rendered, kind, True, words, None))
                continue
            if kind != "text" and not item.spans:
                continue
            prompted.append(_prompted(rendered, kind, True, item.caption, item.spans))
            comparable = distinct if kind == "span" else kind == "text" or bool(other)
            if item.other and comparable:
                prompted.append(_prompted(rendered, kind, False, item.other, other))
    return prompted, alike


def _words(kind: str, item: FixedMixture) -> str:
    """The text of a wording or of an absent sound; "" where the mixture has none."""
    return item.absent if kind == ABSENT else WORDINGS[kind](item)


def _prompted(
    rendered: Rendered, kind: str, right: bool, text: str, spans: tuple[TimeRange, ...]
) -> PromptedMixture:
    """One mixture with the parts of the prompt that its kind has."""
    return PromptedMixture(
        rendered,
        kind,
        right,
        text if "text" in kind else None,
        spans if "span" in kind else None,
    )


def batches(prompted: Sequence[PromptedMixture], size: int) -> list[list[PromptedMixture]]:
    """Batches of one length and `size` rows each; the last batch of a length may be smaller."""
    by_length: dict[int, list[PromptedMixture]] = {}
    for one in prompted:
        by_length.setdefault(one.length, []).append(one)
    return [
        group[start : start + size]
        for group in by_length.values()
        for start in range(0, len(group), size)
    ]


def separate_batch(
    model: SAMAudio, batch: Sequence[PromptedMixture], rows: int, solver: SolverChoice
) -> Iterator[tuple[PromptedMixture, Wave, Wave]]:
    """Yields target and residual of each row of a batch, at the mixture's rate and length.

    The batch is filled up to `rows` with repetitions, so that each length compiles once.
    """
    filled = [batch[row % len(batch)] for row in range(rows)]
    settings = {"method": solver.method, "steps": solver.steps}
    separated = model.separate(
        [one.rendered.mixture for one in filled],
        text=[one.text for one in filled],
        spans=[one.positive_spans() for one in filled],
        sample_rate=batch[0].rendered.sample_rate,
        seed=solver.seed,
        **{name: value for name, value in settings.items() if value is not None},
    )
    for one, stems in zip(batch, separated, strict=False):
        yield one, fit(stems.target, one.length), fit(stems.residual, one.length)


def fit(stem: Any, length: int) -> Wave:
    """The stem as mono float32 of that length: cut, or with zeros at the end."""
    wave = np.asarray(stem, np.float32).reshape(-1)[:length]
    return np.pad(wave, (0, length - len(wave)))
