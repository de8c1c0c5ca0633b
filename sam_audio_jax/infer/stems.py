"""What a separation returns: of one text, of several, and of a batch as the reference has it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax.audio import TOO_LOUD
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.refine import RefineConfig, divide_among, wiener
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


@dataclasses.dataclass(frozen=True)
class TextStems(Mapping[str, Stems]):
    """The stems of several texts of one recording, by text, in the order of the texts.

    `joint` targets, with `rest` if it was asked for, add up to the recording, in its shape and at
    its rate. Each residual is all that its target is not.
    """

    by_text: Mapping[str, Stems]
    joint: bool = False
    rest: Float[np.ndarray, "*channels samples"] | None = None  # what no text took

    def __getitem__(self, text: str) -> Stems:
        return self.by_text[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_text)

    def __len__(self) -> int:
        return len(self.by_text)

    @property
    def sample_rate(self) -> int:
        """Samples a second, the same for all stems."""
        return next(iter(self.by_text.values())).sample_rate

    @property
    def notes(self) -> tuple[str, ...]:
        """What a listener should know, each once."""
        return tuple(dict.fromkeys(note for stems in self.values() for note in stems.notes))


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


def check_waves(waves: Float[np.ndarray, "*stems samples"], name: str) -> None:
    """Raises `UserError` for decoded waves of `name` that are no sound: NaN, or too large.

    Weights can be finite and what they compute not. Nothing of the size of the waves is allocated.
    """
    if waves.size and not max(waves.max(), -waves.min()) < TOO_LOUD:
        raise UserError(
            f"the model computes no sound for {name}: its stems have values that are NaN, infinite "
            "or out of any scale; its weights are damaged or too coarse, or the recording is far "
            "too loud"
        )


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


def divided(
    items: Sequence[Item], stems: Sequence[Stems], config: RefineConfig, *, rest: bool
) -> TextStems:
    """The recording of all `items`, divided among the generated stems of their texts."""
    recording, flat = items[0].recording, items[0].flat
    waves = divide_among(
        recording.samples,
        [one.target for one in stems],
        [one.residual for one in stems] if rest else (),
        sample_rate=recording.sample_rate,
        stem_rate=stems[0].sample_rate,
        config=config,
        spans=[item.spans for item in items],
        offsets=items[0].offsets,
    )
    whole = recording.samples[0] if flat else recording.samples
    waves = [wave[0] for wave in waves] if flat else waves
    by_text = {
        item.text: dataclasses.replace(
            one, target=wave, residual=whole - wave, sample_rate=recording.sample_rate
        )
        for item, one, wave in zip(items, stems, waves, strict=False)
    }
    return TextStems(by_text, joint=True, rest=waves[-1] if rest else None)
