"""How a separation runs: solver, noise, candidates, and what is done with the stems."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import draw_noise
from sam_audio_jax.infer.rerank import Scorer
from sam_audio_jax.separator.flow import SamplerConfig, checked_method

REFINEMENTS = (None, "wiener")
TORCHDIFFEQ = {"heun2": "heun"}  # names of the reference's solver library that are not ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Of one call, checked; the same for all of its items."""

    sampler: SamplerConfig
    scorer: Scorer  # judges candidates, where there are two or more
    seed: int = 0  # of the noise, where none is given
    candidates: int = 1  # solves per item, of which the scorer keeps one
    predict_spans: bool = False  # for items that were given none
    watermark: Any = None  # None, "random", or bits: `[bits]` or `[waves, bits]`
    refine: str | None = None  # "wiener": divide the recording itself

    def __post_init__(self):
        if self.candidates < 1:
            raise UserError(f"candidates={self.candidates} must be 1 or more")
        if self.refine not in REFINEMENTS:
            raise UserError(f"refine={self.refine!r} is unknown; allowed: 'wiener' or None")
        if self.refine and self.watermark is not None:
            raise UserError("refined stems are the recording's own: they carry no watermark")

    def noise(self, frames: int, state: int) -> Float[np.ndarray, "candidates frames state"]:
        """x(0) of the seed, the same for every item; frames added behind change none before."""
        return np.stack([draw_noise(self.seed, frames, state, n) for n in range(self.candidates)])

    def messages(self, waves: int, bits: int) -> Int[np.ndarray, "waves bits"] | None:
        """Watermark bits of `waves` decoded waves, in decoding order; None leaves them clean.

        `"random"` is what the reference does at every call; here the seed decides.
        """
        if self.watermark is None:
            return None
        if isinstance(self.watermark, str) and self.watermark == "random":
            return np.random.default_rng(self.seed).integers(0, 2, (waves, bits), np.int32)
        message = np.asarray(self.watermark)
        fits = message.shape in ((bits,), (waves, bits)) and message.dtype.kind in "biuf"
        if not fits or not np.isin(message, (0, 1)).all():
            raise UserError(
                f"watermark must be None, 'random' or {bits} bits for all or each of {waves} "
                f"waves, got {message.dtype} of shape {message.shape}"
            )
        return np.broadcast_to(message, (waves, bits)).astype(np.int32)


def choose_sampler(
    default: SamplerConfig,
    *,
    method: str | None = None,
    steps: int | None = None,
    ode: str | None = None,
    ode_opt: Mapping[str, Any] | None = None,
) -> SamplerConfig:
    """The sampler of one call: what it says, else `default`.

    `ode` is another name of `method`. `ode_opt` is the reference's form of both:
    `{"method": "midpoint", "options": {"step_size": 1 / 16}}`.
    """
    method = one_of("method", method, "ode", ode)
    if ode_opt is not None:
        given_method, given_steps = _parse_ode_opt(ode_opt)
        method = one_of("method", method, "ode_opt", given_method)
        steps = one_of("steps", steps, "ode_opt", given_steps)
    return SamplerConfig(
        method=default.method if method is None else checked_method(method),
        steps=default.steps if steps is None else steps,
    )


def _parse_ode_opt(ode_opt: Mapping[str, Any]) -> tuple[str | None, int | None]:
    form = "{'method': 'midpoint', 'options': {'step_size': 0.0625}}"
    if not isinstance(ode_opt, Mapping) or not set(ode_opt) <= {"method", "options"}:
        raise UserError(f"ode_opt={ode_opt!r} must be like {form}")
    method, settings = ode_opt.get("method"), ode_opt.get("options") or {}
    if not isinstance(settings, Mapping) or not set(settings) <= {"step_size"}:
        raise UserError(f"ode_opt options {settings!r} are unknown; allowed: 'step_size'")
    if method is not None:
        method = TORCHDIFFEQ.get(method, method)
    if "step_size" not in settings:
        return method, None
    size = settings["step_size"]
    steps = round(1 / size) if isinstance(size, int | float) and 0 < size <= 1 else 0
    if not steps or abs(steps * size - 1) > 1e-6:
        raise UserError(f"ode_opt step_size={size!r} must be 1 / a whole number of steps")
    return method, steps


def one_of(name: str, value: Any, other_name: str, other: Any) -> Any:
    """The one of two names of a thing that was used."""
    if value is not None and other is not None:
        raise UserError(f"{name} and {other_name} are two names of one thing: give one of them")
    return other if value is None else value
