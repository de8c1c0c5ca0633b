"""What a visitor asks for: the JSON of a job, checked by the same functions as every call."""

import dataclasses
import math
from typing import Any

import numpy as np

from sam_audio_jax.bounds import check, hints
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.separator.prompts import Span

FIELDS = {"recording", "prompts", "box", "refine", "joint", "steps", "seed"}
PROMPT_FIELDS = {"text", "spans"}
MASK_SIZE = 1_000  # rows and columns of the mask of a box, which is scaled to the video's own size


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Prompts of one recording and how to separate them; `box` is in shares of the picture."""

    prompts: tuple[tuple[str, tuple[Span, ...]], ...]  # text and spans of each sound
    options: SeparateOptions
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom

    @property
    def several(self) -> bool:
        """Whether the stems are those of several texts."""
        return len(self.prompts) > 1 or self.options.joint

    def mask(self) -> np.ndarray | None:
        """The box as the mask of one frame, `[1, rows, columns]`."""
        if self.box is None:
            return None
        mask = np.zeros((1, MASK_SIZE, MASK_SIZE), bool)
        left, top, right, bottom = (round(side * MASK_SIZE) for side in self.box)
        mask[:, top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return mask


def parse(body: Any, seconds: float, name: str, limits: Limits) -> JobRequest:
    """Reads the JSON of a job on a recording of so many seconds.

    Raises UserError for what is wrong, with the texts of `separate`; `name` is the recording's.
    """
    _check_fields(body, FIELDS)
    rows = body.get("prompts")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("prompts must be a list of objects with text and spans")
    if len(rows) > limits.prompts:
        raise UserError(f"{len(rows)} prompts are too many: this page takes {limits.prompts}")
    prompts = tuple(_prompt(row, seconds, name, limits) for row in rows)
    box = _box(body.get("box"))
    refine, joint = (
        _flag(body, key, default) for key, default in (("refine", True), ("joint", False))
    )
    if len(prompts) > 1:
        inputs.check_texts([text for text, _ in prompts], None, name)
        if box:
            raise UserError("a box in the video prompts one sound: leave the other prompts out")
    elif not box:
        text, spans = prompts[0] if prompts else ("", ())
        if not text and not spans:
            raise UserError(
                f"nothing says what to separate from {name}: write a text or mark spans"
            )
    numbers = {"seed": body.get("seed", 0), "steps": body.get("steps")}
    for key, value in numbers.items():
        check(hints(SeparateOptions)[key], value, key)
    options = SeparateOptions(
        refine="wiener" if refine else None, rest=joint and len(prompts) > 1, **numbers
    )
    return JobRequest(prompts=prompts or (("", ()),), options=options, box=box)


def _check_fields(values: dict[str, Any], allowed: set[str]) -> None:
    if unknown := sorted(set(values) - allowed):
        raise UserError(
            f"field {shown(unknown[0])} is unknown; allowed: {', '.join(sorted(allowed))}"
        )


def _prompt(
    row: dict[str, Any], seconds: float, name: str, limits: Limits
) -> tuple[str, tuple[Span, ...]]:
    """The text and the spans of one sound."""
    _check_fields(row, PROMPT_FIELDS)
    text = inputs.check_text(row.get("text"), name)
    if len(text) > limits.text:
        raise UserError(f"a text of {len(text)} characters is too long: {limits.text} are allowed")
    spans = inputs.parse_spans(row.get("spans") or (), name)
    checked = inputs.check_spans(spans, seconds, name)
    if len(checked) > limits.spans:
        raise UserError(f"{len(checked)} spans are too many: {limits.spans} are allowed")
    return text, checked


def _flag(body: dict[str, Any], key: str, default: bool) -> bool:
    value = body.get(key, default)
    if not isinstance(value, bool):
        raise UserError(f"{key}={shown(value)} must be true or false")
    return value


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    numbers = isinstance(value, list) and len(value) == 4
    if not numbers or not all(_is_share(side) for side in value):
        raise UserError(
            f"box {shown(value)} must be left, top, right and bottom, in shares of the picture"
        )
    left, top, right, bottom = map(float, value)
    if not (left < right and top < bottom):
        raise UserError(f"box {shown(value)} is empty: left must be below right, top below bottom")
    return left, top, right, bottom


def _is_share(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= 1
