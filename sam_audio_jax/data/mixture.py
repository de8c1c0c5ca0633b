"""One mixture: its waves, the phrases for its two sounds, and where their recordings lie."""

import dataclasses

import numpy as np
from jaxtyping import Bool

from sam_audio_jax.data import energy
from sam_audio_jax.data.arrange import Placement, Samples


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`mixture == target + residual` to the bit; the texts of one do not hold for the other."""

    mixture: Samples
    target: Samples
    residual: Samples
    target_texts: tuple[str, ...]
    residual_texts: tuple[str, ...]  # empty: the residual has no name and cannot be a target
    category: str  # "target/residual" of the recipe
    # Stretches of single recordings that the two consist of, to lay out their videos.
    target_places: tuple[Placement, ...] = ()
    residual_places: tuple[Placement, ...] = ()
    # Every phrase that is true of the target, and of any sound of the residual.
    target_claims: frozenset[str] = frozenset()
    residual_claims: frozenset[str] = frozenset()
    # Constants that are in target and residual and are no sound.
    target_offset: float = 0.0
    residual_offset: float = 0.0
    absolute: bool = (
        False  # whether silence is below -40 dBFS; else below the loudest cell by 40 dB
    )

    def exchanged(self) -> "Mixture":
        """The same mixture with target and residual exchanged; its residual must have a name."""
        swapped = {"category": "/".join(reversed(self.category.split("/")))}
        for name in ("", "_texts", "_places", "_claims", "_offset"):
            swapped[f"target{name}"] = getattr(self, f"residual{name}")
            swapped[f"residual{name}"] = getattr(self, f"target{name}")
        return dataclasses.replace(self, **swapped)

    def activities(self, sample_rate: int, hop: int) -> Bool[np.ndarray, "sources frames"]:
        """In which frames of `hop` samples the target, and the residual, sounds."""
        pairs = (self.target, self.target_offset), (self.residual, self.residual_offset)
        waves = [wave - np.float32(offset) if offset else wave for wave, offset in pairs]
        return np.stack(
            [energy.activity(wave, sample_rate, hop, absolute=self.absolute) for wave in waves]
        )
