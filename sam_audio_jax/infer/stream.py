"""Separation of sound while it arrives: blocks in, stems out, in bounded memory.

for stems in stream(model, microphone, 48_000, text="dog barking"): play(stems.target)
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import check_text, parse_spans, require_prompt, warn
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.prompt_notes import span_notes, text_notes
from sam_audio_jax.infer.refine import (
    RefineConfig,
    divide,
    estimate_stems,
    gated,
    hop_and_margin,
)
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems, check_waves
from sam_audio_jax.infer.stream_input import StreamInput
from sam_audio_jax.infer.stream_windows import Pair, SlidingBuffer, WindowQueue
from sam_audio_jax.separator.prompts import Span

LONGEST_NOTED_S = 86_400.0  # spans behind it are not looked at: each frame takes memory
FEW_CHANNELS = 16  # blocks of more channels than this, and than samples, are transposed


def stream(
    model: SAMAudio,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    *,
    text: Any = None,
    spans: Sequence[Sequence] | None = None,
    window_s: float = 10.0,
    overlap_s: float = 2.5,
    method: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    refine: str | None = None,
    unprompted: bool = False,
) -> "Stream":
    """Yields the stems of `blocks` (`[samples]` or `[channels, samples]`, of any lengths).

    The pieces follow each other without gaps and are together as long as what `separate` returns:
    mono at the model's rate, or with `refine="wiener"` of the blocks' own channels, rate and
    length, with target + residual = input. Spans are in seconds from the first sample. A stream
    that fits into one window gives the stems of `separate` with the same seed; a longer one those
    of multi-diffusion in which no window waits for the next (infer/stream_windows.py). Level and
    mix of the channels follow from what has arrived (infer/stream_input.py). Silence is no error.
    Without a text with words and spans it is an error, or `unprompted`.
    Raises `UserError` for wrong arguments at once, for wrong blocks when they arrive.
    """
    pipeline = model.pipeline
    options = SeparateOptions(method=method, steps=steps, seed=seed, refine=refine)
    if isinstance(text, list | tuple):
        raise UserError(
            "a stream has one text: give several texts to separate(), or run a stream each"
        )
    original = text
    text, spans = check_text(text, "the stream"), _check_spans(spans)
    if not unprompted:
        require_prompt(text, spans, None, "the stream")
    sample_rate = audio.check_rate(sample_rate)
    notes = _notes(model, original, text, spans)
    warn([f"the stream: {note}" for note in notes])
    queue = WindowQueue(
        pipeline.compiled,
        pipeline.tokenizer,
        text,
        spans,
        window_s=window_s,
        overlap_s=overlap_s,
        sampler=options.sampler(model.sampler),
        seed=options.seed,
    )
    refinement = pipeline.refinement if options.refine else None
    return Stream(queue, blocks, sample_rate, refinement, pipeline.level_db)


def _notes(model: SAMAudio, original: Any, text: str, spans: Sequence[Span]) -> Iterator[str]:
    """Yields what of the prompts has no effect; the length of the recording is not known."""
    pipeline, grid = model.pipeline, model.codec.config
    yield from text_notes(original, text, pipeline.tokenizer)
    if text and not spans and pipeline.known and (note := pipeline.known.note(text)):
        yield note
    spans = [span for span in spans if span[2] <= LONGEST_NOTED_S]
    frames = math.ceil(max((end for *_, end in spans), default=0) * grid.frame_rate) + 1
    yield from span_notes(spans, frames, grid.sample_rate, grid.hop, pipeline.ignored_spans)


def _check_spans(spans: Sequence[Sequence] | None) -> tuple[Span, ...]:
    """Spans of a recording whose length is not known yet."""
    parsed = parse_spans(() if spans is None else spans, "the stream")
    for token, start, end in parsed:
        if not 0 <= start < end:
            raise UserError(f"span {token} {start:g}-{end:g} s must have 0 <= start < end")
    return parsed


class Stream(Iterator[Stems]):
    """Pieces of the stems, in order."""

    def __init__(
        self,
        queue: WindowQueue,
        blocks: Iterable[np.ndarray],
        sample_rate: int,
        refinement: RefineConfig | None,
        level_db: float | None,
    ):
        self.sample_rate, self.stem_rate = sample_rate, queue.codec.config.sample_rate
        self._queue, self._refinement, self._level_db = queue, refinement, level_db
        self._input: StreamInput | None = None  # created with the first block
        self._divider: Divider | None = None  # created with the first block
        self._pieces = self._run(blocks)

    @property
    def latency_s(self) -> float:
        """Seconds of sound that must follow a sample before its stems come out, at the most.

        This is the algorithm's; the length of the blocks and the time to compute come on top.
        """
        seconds = self._queue.latency_s
        seconds += audio.Resampler(self.sample_rate, self.stem_rate, 1).latency_s
        if self._refinement is not None:
            seconds += audio.Resampler(self.stem_rate, self.sample_rate, 2).latency_s
            seconds += sum(hop_and_margin(self.sample_rate, self._refinement)) / self.sample_rate
        return seconds

    def __next__(self) -> Stems:
        return next(self._pieces)

    def _run(self, blocks: Iterable[np.ndarray]) -> Iterator[Stems]:
        shape = None
        for block in blocks:
            wave = _check_block(block, shape)
            if self._input is None:
                rates = self.sample_rate, self.stem_rate
                self._input = StreamInput(
                    wave.shape[1], rates, self._queue.window_ends, self._level_db
                )
                if self._refinement is not None:
                    self._divider = Divider(
                        wave.shape[1], *rates, self._refinement, self._queue.spans
                    )
            shape = np.shape(block)[:-1]
            if self._divider is not None:
                self._divider.append(wave)
            for levelled in self._input.append(wave):
                for pair in self._queue.append(levelled):
                    yield from self._stems(self._input.undo(pair), shape, last=False)
        if shape is None or self._input is None:  # there was no block
            return
        for pair in self._queue.append(self._input.finish()):
            yield from self._stems(self._input.undo(pair), shape, last=False)
        pair = self._input.undo(self._queue.finish())
        yield from self._stems(pair, shape, last=True)

    def _stems(self, pair: Pair, shape: tuple[int, ...], *, last: bool) -> Iterator[Stems]:
        """At most one piece; none while there are too few samples for one."""
        check_waves(pair, "the stream")
        target, residual = pair.T
        rate = self.stem_rate
        if self._divider is not None:
            offsets = None if self._input is None else self._input.offsets
            target, residual = self._divider(pair, offsets, last=last)
            rate = self.sample_rate
            if not shape:
                target, residual = target[0], residual[0]
        if target.shape[-1]:
            yield Stems(target, residual, rate)


def _check_block(
    block: Any, shape: tuple[int, ...] | None
) -> Float[np.ndarray, "samples channels"]:
    """The block as `[samples, channels]`, checked; `shape` is that of earlier ones less samples."""
    wave = np.asarray(block)
    if wave.dtype.kind != "f" or wave.ndim not in (1, 2) or (wave.ndim == 2 and not len(wave)):
        raise UserError(
            "a block must be [samples] or [channels, samples] of floats with full scale 1.0, "
            f"not {wave.dtype} of shape {wave.shape}"
        )
    if FEW_CHANNELS < len(wave) > wave.shape[-1] > 0:  # [samples, channels], as sounddevice has it
        raise UserError(
            f"a block has {len(wave)} channels of {wave.shape[-1]} samples: transposed?"
        )
    if shape is not None and wave.shape[:-1] != shape:
        raise UserError(f"a block of shape {wave.shape} follows blocks of {(*shape, 'samples')}")
    if not np.isfinite(wave).all():
        raise UserError("a block has samples that are NaN or infinite")
    if wave.size and max(wave.max(), -wave.min()) >= audio.TOO_LOUD:
        raise UserError(
            f"a block has samples of {audio.TOO_LOUD:g} times full scale or more; allowed are less"
        )
    return np.atleast_2d(wave).T.astype(np.float32)


class Divider:
    """`refine.wiener` for a stream: divides the recording as far as its stems are solved.

    The level of silence follows from the stems so far, in `wiener` from all of them.
    """

    def __init__(
        self,
        channels: int,
        sample_rate: int,
        stem_rate: int,
        config: RefineConfig,
        spans: Sequence[Span] = (),
    ):
        self.sample_rate, self.stem_rate, self.config = sample_rate, stem_rate, config
        self._spans = spans
        self._resample = audio.Resampler(stem_rate, sample_rate, 2)
        self._mixture, self._stems = SlidingBuffer(channels), SlidingBuffer(2)
        self._done, self._energy = 0, 0.0

    def append(self, wave: Float[np.ndarray, "samples channels"]) -> None:
        """Appends samples of the recording."""
        self._mixture.append(wave)

    def __call__(
        self, pair: Pair, offsets: Float[np.ndarray, " channels"] | None, *, last: bool
    ) -> tuple[Float[np.ndarray, "channels divided"], Float[np.ndarray, "channels divided"]]:
        """Appends samples of the stems; returns what can be divided now, in an exact sum.

        The `offsets` of the channels, if any, are in the residual.
        """
        stems = self._resample(pair, last=last)
        if last:
            left = self._mixture.stop - self._stems.stop
            stems = np.pad(stems[:left], ((0, max(0, left - len(stems))), (0, 0)))
        self._stems.append(stems)
        self._energy += float(np.sum(np.square(stems, dtype=np.float64)))
        hop, margin = hop_and_margin(self.sample_rate, self.config)
        done, stop = self._done, self._stems.stop
        until = stop if last else max(done, (stop - margin) // hop * hop)
        if until == done:
            empty = self._mixture.read(done, done).T
            return empty, empty
        start = max(0, done - margin)
        excerpt = self._mixture.read(start, stop).T
        (estimate,) = estimate_stems(
            excerpt if offsets is None else audio.without_offsets(excerpt, offsets),
            self._stems.read(start, stop).T,
            sample_rate=self.sample_rate,
            stem_rate=self.stem_rate,
            level=self._energy / (2 * stop),
            config=self.config,
        )
        mixture = self._mixture.read(done, until).T
        estimate = estimate[:, done - start : until - start]
        estimate = gated(estimate, self._spans, done, self.sample_rate, self.config)
        divided = divide(mixture, estimate)
        self._done = until
        self._mixture.forget(until - margin)
        self._stems.forget(until - margin)
        return divided
