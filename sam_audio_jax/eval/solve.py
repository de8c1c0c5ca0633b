"""The questions that an evaluation asks of a model, and asking them in batches of equal length.

Each item is separated once per kind of prompt with its own prompt, and once with the residual's
where that is one nameable source: a model that follows its prompts answers them differently.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import Mixture, Span, activity, overlap
from sam_audio_jax.infer.separate import SAMAudio

PROMPTS = ("text", "span", "text+span")
SAME_ACTIVITY = 0.9  # overlap of target's and residual's spans above which spans tell nothing apart

Wave = Float[np.ndarray, " samples"]


@dataclasses.dataclass(frozen=True)
class Sound:
    """An item at the rate at which it is scored; `mixture == target + residual`."""

    item: Mixture
    mixture: Wave
    target: Wave
    residual: Wave


@dataclasses.dataclass(frozen=True)
class Question:
    """One separation: which sound, asked how, for its target (right) or its residual (wrong)."""

    sound: Sound
    prompt: str
    right: bool
    text: str | None
    spans: tuple[Span, ...] | None

    def marks(self) -> list[tuple[str, float, float]] | None:
        """The spans as the model takes them, cut at the end of the sound (they are rounded)."""
        if self.spans is None:
            return None
        return [("+", start, min(end, self.sound.item.seconds)) for start, end in self.spans]


@dataclasses.dataclass(frozen=True)
class Options:
    """Of the solver; None: what the model itself would take."""

    method: str | None = None
    steps: int | None = None
    seed: int = 0


def questions(
    sounds: Sequence[Sound], prompts: Sequence[str], sample_rate: int
) -> tuple[list[Question], list[str]]:
    """The separations to make, and the ids of two-source items that spans cannot tell apart."""
    for prompt in prompts:
        if prompt not in PROMPTS:
            raise UserError(f"prompt {prompt!r} must be one of {', '.join(PROMPTS)}")
    asked, alike = [], []
    for sound in sounds:
        item = sound.item
        other = activity(sound.residual, sample_rate) if item.other else ()
        told_apart = bool(other) and overlap(item.spans, other) <= SAME_ACTIVITY
        if item.other and not told_apart:
            alike.append(item.id)
        for prompt in prompts:
            if prompt != "text" and not item.spans:
                continue
            asked.append(_question(sound, prompt, True, item.caption, item.spans))
            judged = told_apart if prompt == "span" else prompt == "text" or bool(other)
            if item.other and judged:
                asked.append(_question(sound, prompt, False, item.other, other))
    return asked, alike


def _question(
    sound: Sound, prompt: str, right: bool, text: str, spans: tuple[Span, ...]
) -> Question:
    return Question(
        sound,
        prompt,
        right,
        text if "text" in prompt else None,
        spans if "span" in prompt else None,
    )


def batches(asked: Sequence[Question], size: int) -> list[list[Question]]:
    """Groups of one length, `size` questions each; the last of a length may be smaller."""
    groups: dict[int, list[Question]] = {}
    for question in asked:
        groups.setdefault(len(question.sound.mixture), []).append(question)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def solve(
    model: SAMAudio, group: Sequence[Question], sample_rate: int, rows: int, options: Options
) -> Iterator[tuple[Question, Wave, Wave]]:
    """Target and residual of each question of one group, at the mixture's rate and length.

    The group is filled up to `rows` with repetitions, so that one length compiles once.
    """
    filled = [group[row % len(group)] for row in range(rows)]
    chosen = {"method": options.method, "steps": options.steps}
    answers = model.separate(
        [question.sound.mixture for question in filled],
        text=[question.text for question in filled],
        spans=[question.marks() for question in filled],
        sample_rate=sample_rate,
        seed=options.seed,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    for question, stems in zip(group, answers, strict=False):
        length = len(question.sound.mixture)
        yield question, fit(stems.target, length), fit(stems.residual, length)


def fit(stem: Any, length: int) -> Wave:
    """The stem as mono float32 of that length: cut, or zeros at the end."""
    wave = np.asarray(stem, np.float32).reshape(-1)[:length]
    return np.pad(wave, (0, length - len(wave)))
