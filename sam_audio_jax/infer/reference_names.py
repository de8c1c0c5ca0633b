"""The reference's names of the arguments of `SAMAudio.separate`, translated to our own."""

from collections.abc import Mapping
from typing import Any

from sam_audio_jax.errors import UserError

NAMES = {
    "descriptions": "text",
    "anchors": "spans",
    "masked_videos": "video",
    "ode": "method",
    "reranking_candidates": "candidates",
}
TORCHDIFFEQ = {"heun2": "heun"}  # names of the reference's solver library that are not ours


def translate(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments by this project's names, without those that are None.

    `ode_opt` is the reference's form of the solver's settings:
    `{"method": "midpoint", "options": {"step_size": 1 / 16}}`. Raises UserError if two names of one
    thing are used, or if `ode_opt` has another form.
    """
    translated: dict[str, Any] = {}
    used: dict[str, str] = {}  # name in `translated` -> name that the caller used

    def add(name: str, value: Any, used_name: str) -> None:
        if value is None:
            return
        if name in translated:
            raise UserError(
                f"{used[name]} and {used_name} are two names of one thing: give one of them"
            )
        translated[name], used[name] = value, used_name

    for name, value in arguments.items():
        if name != "ode_opt":
            add(NAMES.get(name, name), value, name)
    if arguments.get("ode_opt") is not None:
        method, steps = _parse_ode_opt(arguments["ode_opt"])
        add("method", method, "ode_opt")
        add("steps", steps, "ode_opt")
    return translated


def _parse_ode_opt(ode_opt: Any) -> tuple[str | None, int | None]:
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
