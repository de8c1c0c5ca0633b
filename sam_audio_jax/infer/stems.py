"""What a separation returns: of one recording, and of a batch as the reference's code has it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.refine import RefineConfig, wiener
from sam_audio_jax.separator.prompts import Span


@dataclasses.dataclass(frozen=True)
class Stems:
    """What the prompts meant, and the rest.

    Generated stems are mono, `[samples]`, at the codec's rate. Refined ones have the shape and rate
    of the recording (`[channels, samples]` unless the caller gave `[samples]`) and add up to it.
    """

    target: Float[np.ndarray, "*channels samples"]
    residual: Float[np.ndarray, "*channels samples"]
    sample_rate: int
    scores: Float[np.ndarray, " candidates"] | None = None  # of every candidate, if there were two
    spans: tuple[Span, ...] = ()  # of the prompt, or predicted from its text
    notes: tuple[str, ...] = ()  # what a listener should know of how they were made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Separated:
    """A batch's stems in the reference's form: lists over items of mono waves at the codec's rate.

    The waves are whole latent frames long, as the reference's are; `cut` brings them to the
    recordings' own lengths.
    """

    target: list[Float[np.ndarray, " _"]]
    residual: list[Float[np.ndarray, " _"]]
    noise: Float[np.ndarray, "rows frames state"]  # x(0) of every candidate, item after item
    sample_rate: int
    wav_sizes: Sequence[int]  # samples of the recordings
    scores: Float[np.ndarray, "items candidates"] | None = None
    spans: list[tuple[Span, ...]] = dataclasses.field(default_factory=list)

    def cut(self) -> "Separated":
        """The same, every wave as long as its recording."""
        waves = {
            name: [wave[:size] for wave, size in zip(stems, self.wav_sizes, strict=True)]
            for name, stems in (("target", self.target), ("residual", self.residual))
        }
        return dataclasses.replace(self, **waves)


def refined(item: Item, stems: Stems, config: RefineConfig) -> Stems:
    """The recording itself, divided as the generated stems say; these are used up."""
    recording = item.recording
    target, residual = wiener(
        recording.samples,
        stems.target,
        stems.residual,
        sample_rate=recording.sample_rate,
        stem_rate=stems.sample_rate,
        config=config,
        spans=item.spans or (),
        offsets=item.offsets,
        overwrite=True,
    )
    if item.flat:
        target, residual = target[0], residual[0]
    rate = recording.sample_rate
    return dataclasses.replace(stems, target=target, residual=residual, sample_rate=rate)
