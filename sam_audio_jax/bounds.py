"""What the fields of a config may be: types and ranges, declared beside each field.

A config class inherits `Checked` and writes a number as `Annotated[int, Range(1, 12)]` or with one
of the names below. Whoever makes a config, from a file, flags, a checkpoint or Python, gets one
line for a value that means nothing: NaN, infinite, outside its range or of another type.
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from typing import Annotated, Any, Literal

from sam_audio_jax.errors import UserError, shown


@dataclasses.dataclass(frozen=True)
class Range:
    """Allowed are numbers from `low` to `high`; without `closed` the ends are not allowed."""

    low: float | int = -math.inf
    high: float | int = math.inf
    closed: tuple[bool, bool] = (True, True)

    def __contains__(self, value: Any) -> bool:
        above = value >= self.low if self.closed[0] else value > self.low
        below = value <= self.high if self.closed[1] else value < self.high
        return above and below

    def __str__(self) -> str:
        low, high = (f"{end:.12g}" for end in (self.low, self.high))
        if self.low > -math.inf and self.high < math.inf and all(self.closed):
            return f"from {low} to {high}"
        ends = []
        if self.low > -math.inf:
            ends.append(f"from {low} on" if self.closed[0] else f"above {low}")
        if self.high < math.inf:
            ends.append(f"up to {high}" if self.closed[1] else f"below {high}")
        return " and ".join(ends)


# The largest numbers are far above any use: they stop a slip before it fills the memory.
Size = Annotated[int, Range(1, 1_000_000)]  # of an axis, in samples, channels, tokens, ...
Depth = Annotated[int, Range(1, 1_000)]  # layers
Count = Annotated[int, Range(0, 1_000_000_000)]  # of steps or items
PositiveCount = Annotated[int, Range(1, 1_000_000_000)]
SampleRate = Annotated[int, Range(1, 1_000_000)]  # in Hz
Seed = Annotated[int, Range(0, 2**32 - 1)]
Workers = Annotated[int, Range(0, 1_024)]  # processes
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, (True, False))]
Positive = Annotated[float, Range(0, closed=(False, True))]
NonNegative = Annotated[float, Range(0)]
Finite = Annotated[float, Range()]
Seconds = Annotated[float, Range(0, 3_600, (False, True))]
Decibels = Annotated[float, Range(-200, 200)]


class Checked:
    """Base of config dataclasses: their fields are checked when one is made.

    `where` names the section of an experiment in messages. A subclass with a `__post_init__` of its
    own begins it with `super().__post_init__()`.
    """

    _where = ""

    def __init_subclass__(cls, where: str | None = None, **arguments: Any):
        super().__init_subclass__(**arguments)
        if where is not None:
            cls._where = f"{where}." if where else ""

    def __post_init__(self):
        """Raises `UserError` for the first field that is not what its class declares."""
        for name, hint in hints(type(self)).items():
            check(hint, getattr(self, name), f"{self._where}{name}")


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Field name -> declared type of a dataclass, with its ranges."""
    declared = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
    return {name: declared[name] for name in names}


def check(hint: Any, value: Any, name: str) -> None:
    """Raises `UserError` when `value` is not what `hint` declares; `name` is what it is called."""
    if not fits(hint, value):
        raise UserError(f"{name}={shown(value)} must be {allowed(hint)}")


def fits(hint: Any, value: Any) -> bool:
    """Whether a value has a declared type and lies in its range. Numbers are always finite."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        ranges = [bound for bound in inner[1:] if isinstance(bound, Range)]
        return fits(inner[0], value) and all(value in bound for bound in ranges)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin in (typing.Union, types.UnionType):
        return any(fits(one, value) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = (inner[0],) * len(value)
        return len(inner) == len(value) and all(map(fits, inner, value))
    if hint in (bool, str, dict):
        return isinstance(value, hint)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        return _is_finite(value)
    if hint is None or hint is type(None):
        return value is None
    return not dataclasses.is_dataclass(hint) or isinstance(value, typing.cast(type, hint))


def _is_finite(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def allowed(hint: Any) -> str:
    """What a declared type allows, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        ranges = [str(bound) for bound in inner[1:] if isinstance(bound, Range)]
        return " ".join([allowed(inner[0]), *ranges]).rstrip()
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(allowed, inner))
    if origin is tuple:
        many = len(inner) == 2 and inner[1] is Ellipsis
        return (
            f"a list, each {allowed(inner[0])}" if many else f"({', '.join(map(allowed, inner))})"
        )
    names = {
        int: "a whole number",
        float: "a finite number",
        str: "a text",
        dict: "an object",
        bool: "True or False",
    }
    return names.get(hint, "None" if hint is type(None) else getattr(hint, "__name__", str(hint)))
