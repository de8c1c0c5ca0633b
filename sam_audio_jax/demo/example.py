"""A recording to begin with: a mixture of the embedded bench, which no training has used."""

import dataclasses

from sam_audio_jax import audio
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.separator.prompts import Span

ITEM = "sfx-000"  # as in the README's picture


@dataclasses.dataclass(frozen=True)
class ExampleRecording:
    """A recording and prompts that fit it."""

    name: str
    recording: audio.Audio
    text: str
    spans: tuple[Span, ...]


def make_example() -> ExampleRecording:
    """Renders the mixture."""
    bench = load_bench("embedded")
    item = next(item for item in bench.mixtures if item.id == ITEM)
    rendered = render(bench, item)
    recording = audio.Audio(rendered.mixture[None], rendered.sample_rate)
    spans = tuple(("+", start, end) for start, end in item.spans)
    return ExampleRecording("example.wav", recording, item.caption, spans)
