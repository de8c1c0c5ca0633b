"""The mixture of one item of an evaluation, whether or not its true stems are known."""

import dataclasses
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.scorers.activity import TimeRange

Wave = Float[np.ndarray, " samples"]


@runtime_checkable
class MixtureItem(Protocol):
    """What a list says of one mixture, before any sound is read."""

    @property
    def id(self) -> str: ...

    @property
    def setting(self) -> str:
        """The group of items that it is reported with."""
        ...

    @property
    def caption(self) -> str:
        """The text that names the target."""
        ...

    @property
    def spans(self) -> tuple[TimeRange, ...]:
        """The time ranges in which the target sounds, in seconds."""
        ...

    @property
    def seconds(self) -> float: ...

    @property
    def residual_captions(self) -> tuple[str, ...]:
        """Texts that name the other sources; empty where they are not listed."""
        ...


@dataclasses.dataclass(frozen=True)
class ListedItem:
    """An item whose stems no list names."""

    id: str
    setting: str
    caption: str
    spans: tuple[TimeRange, ...]
    seconds: float
    residual_captions: tuple[str, ...] = ()

    def of_length(self, seconds: float) -> "ListedItem":
        """The same item with the length that its recording has; spans end there at the latest."""
        spans = tuple((start, min(end, seconds)) for start, end in self.spans if start < seconds)
        return dataclasses.replace(self, spans=spans, seconds=seconds)


ItemT = TypeVar("ItemT", bound=MixtureItem, covariant=True)


@dataclasses.dataclass(frozen=True)
class Recorded(Generic[ItemT]):
    """A mixture, mono float32; `Rendered` is one whose stems are known."""

    item: ItemT
    mixture: Wave
    sample_rate: int


@dataclasses.dataclass(frozen=True)
class Rendered(Recorded[ItemT]):
    """A mixture with its true stems; `mixture == target + residual` exactly."""

    target: Wave
    residual: Wave

    def resampled(self, rate: int) -> "Rendered[ItemT]":
        """The same item at another rate; the stems are resampled and added up again."""
        target = audio.resample(self.target, self.sample_rate, rate)
        residual = audio.resample(self.residual, self.sample_rate, rate)
        return Rendered(self.item, target + residual, rate, target, residual)
