"""What the windows of a stream get of its blocks: one channel, at the model's rate and level.

Mix and level follow from the samples so far, of the last hour at most, at fixed samples: where the
first window is complete, and then where each next one is. So a stream of one window is mixed and
levelled as `separate` does it, later samples change nothing that is given back, and no sample waits
for it. Where mix or level change they do so within `FADE_S`, and stems are brought back by the
gains that their samples had.
"""

import math
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32

from sam_audio_jax import audio
from sam_audio_jax.audio import Level
from sam_audio_jax.infer.stream_windows import Pair, SlidingBuffer

FADE_S = 0.1  # seconds in which a new mix or level replaces the last
LONGEST_S = 3_600  # seconds that mix and level follow from: a stream may go on for days


class StreamInput:
    """Mixes, resamples and levels samples `[samples, channels]` as they arrive."""

    def __init__(
        self,
        channels: int,
        rates: tuple[int, int],
        steps: tuple[int, int],
        level_db: float | None,
    ):
        """`rates` of blocks and model; `steps`: samples of the model until the first decision and
        between the following ones.
        """
        self.rate, self.stem_rate = rates
        self.steps, self.level_db = steps, level_db
        self._resample = audio.Resampler(*rates, 1)
        self._waiting = SlidingBuffer(channels)  # samples after the last decision
        self._decisions = 0
        self._mixer, self._meter = (
            audio.ChannelMixer(channels, self.rate, LONGEST_S),
            audio.LevelMeter(self.stem_rate, LONGEST_S),
        )
        self._weights: Float[np.ndarray, " channels"] | None = None
        self._level: Level | None = None
        self._gains = SlidingBuffer()  # of samples whose stems have not come back
        self._offsets = audio.OffsetMeter(channels)

    def append(
        self, block: Float[np.ndarray, "samples channels"]
    ) -> Iterator[Float32[np.ndarray, " levelled"]]:
        """Yields samples for the windows wherever a decision is due."""
        self._waiting.append(block)
        while self._waiting.stop >= (end := self._decision()):
            yield self._next(self._waiting.read(self._waiting.start, end), last=False)
            self._waiting.forget(end)
            self._decisions += 1

    def finish(self) -> Float32[np.ndarray, " levelled"]:
        """Returns all that is left."""
        return self._next(self._waiting.read(self._waiting.start, self._waiting.stop), last=True)

    def undo(self, stems: Pair) -> Pair:
        """Returns the next samples of the stems at the stream's own level."""
        if self.level_db is None:
            return stems
        start, stop = self._gains.start, self._gains.start + len(stems)
        gains = self._gains.read(start, stop)
        self._gains.forget(stop)
        return stems if np.all(gains == 1) else stems * (1 / gains)[:, None]

    @property
    def offsets(self) -> Float32[np.ndarray, " channels"] | None:
        """Returns the offsets of the channels up to the last decision; None: they stay."""
        return None if self.level_db is None else self._offsets.offsets

    def _decision(self) -> int:
        """Samples of the blocks that must be there for the next decision."""
        ends = self.steps[0] + self._decisions * self.steps[1]
        return math.ceil((ends / self.stem_rate + self._resample.latency_s) * self.rate)

    def _next(
        self, samples: Float[np.ndarray, "samples channels"], *, last: bool
    ) -> Float32[np.ndarray, " levelled"]:
        channels = samples.T
        self._offsets.add(channels)
        self._mixer.add(channels)
        weights, before = self._mixer.weights, self._weights
        if not audio.is_mean(weights) and (before is None or np.any(weights != before)):
            mix = audio.describe(weights)
            warnings.warn(
                f"channels of the stream cancel in their mean; what is separated is {mix}",
                stacklevel=2,
            )
        mono = audio.mono(channels, weights)
        if before is not None and np.any(weights != before):
            mono = _faded(audio.mono(channels, before), mono, round(FADE_S * self.rate))
        self._weights = weights
        wave = self._resample(mono[:, None], last=last)[:, 0]
        self._meter.add(wave)
        found = None if self.level_db is None else self._meter.level(self.level_db)
        level = audio.AS_RECORDED if found is None else found
        levelled, gains = level.apply(wave), np.full(len(wave), level.gain, np.float32)
        if self._level is not None and level != self._level:
            fade = round(FADE_S * self.stem_rate)
            gains = _faded(np.full_like(gains, self._level.gain), gains, fade)
            offsets = np.full_like(gains, level.offset)
            offsets = _faded(np.full_like(gains, self._level.offset), offsets, fade)
            levelled = np.clip((wave - offsets) * gains, -1.0, 1.0)
        self._level = level
        if self.level_db is not None:
            self._gains.append(gains)
        return levelled


def _faded(
    before: Float[np.ndarray, " samples"], after: Float[np.ndarray, " samples"], fade: int
) -> Float32[np.ndarray, " samples"]:
    """Returns `after` with `before` in the beginning."""
    share = np.minimum(np.arange(1, len(after) + 1) / fade, 1).astype(np.float32)
    return (before + share * (after - before)).astype(np.float32)
