"""The windows behind a stream: samples at the codec's rate in, samples of both stems out.

A window is solved as soon as its samples have arrived, before its successor exists. So in the
overlap a window follows the trajectory of its predecessor (separator/windows.py, `sample_after`).
Latents are encoded and decoded with the context that the codec needs: the result is equal to that
of encoding and decoding everything at once.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sam_audio_jax.bounds import NonNegative, Seconds, check
from sam_audio_jax.codec.chunked import (
    decode_chunked,
    decoder_context,
    encode_chunked,
    encoder_context,
)
from sam_audio_jax.codec.codec import pad_to_hop
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.collate import Tokenize
from sam_audio_jax.infer.long_audio import TextMemory, WindowedRecording
from sam_audio_jax.infer.solve import Networks
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.separator import windows
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.prompts import Span, frame_anchors

Pair = Float[np.ndarray, "samples stems"]


class SlidingBuffer:
    """The last rows of a growing array, indexed as in the whole array."""

    def __init__(self, *shape: int):
        self.start = self.stop = 0
        self._parts = [np.zeros((0, *shape), np.float32)]

    def append(self, rows: Float[np.ndarray, "rows ..."]) -> None:
        self._parts.append(rows)
        self.stop += len(rows)

    def read(self, start: int, stop: int) -> Float[np.ndarray, "rows ..."]:
        if len(self._parts) > 1:  # concatenated only now, because appended parts may be small
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0][start - self.start : stop - self.start]

    def forget(self, before: int) -> None:
        if before > self.start:
            self._parts = [self.read(before, self.stop).copy()]
            self.start = before


def _solve(
    networks: Networks,
    recording: WindowedRecording,
    noise: Float[Array, "frames state"],
    past: Float[Array, "steps calls 1 frames state"],
    moved: Int[Array, ""],
    overlap_weight: Float[Array, " frames"],
    *,
    rows: int,
    sampler: SamplerConfig,
) -> tuple[Float[Array, "frames state"], Float[Array, "steps calls 1 frames state"]]:
    """Latents of a window that begins `moved` frames after the one whose velocities are `past`.

    It is evaluated in `rows` equal rows, because each batch shard of a mesh must have one.
    """
    separator = networks.separator
    starts = jnp.zeros(rows, jnp.int32)
    prepared = separator.prepare(recording.conditions(starts, noise.shape[0], separator))

    def velocity(x: Array, time: Array) -> Array:
        copies = jnp.broadcast_to(x, (rows, *x.shape[1:]))
        times = jnp.broadcast_to(time, (rows,))
        size = sampler.step_size(times)
        return separator.velocity(copies, times, prepared, step_size=size)[:1]

    latents, velocities = windows.sample_after(
        velocity,
        noise[None],
        jnp.roll(past, -moved, axis=3),
        overlap_weight,
        sampler,
    )
    return latents[0], velocities


class WindowQueue:
    """Solves window after window; holds only the last window and the codec's context."""

    def __init__(
        self,
        compiled: Compiled[Networks],
        tokenizer: Tokenize,
        text: str,
        spans: tuple[Span, ...],
        *,
        window_s: float,
        overlap_s: float,
        sampler: SamplerConfig,
        seed: int,
    ):
        self.compiled, self.codec = compiled, compiled.network.codec
        self._compiled_codec = Compiled(self.codec)
        config, rate = compiled.network.separator.config, self.codec.config.frame_rate
        check(Seconds, window_s, "window_s")
        check(NonNegative, overlap_s, "overlap_s")
        self.window, overlap = round(window_s * rate), round(overlap_s * rate)
        if not 1 <= self.window <= config.dit.max_positions:
            raise UserError(
                f"window_s={window_s:g} must be {1 / rate:g} to {config.dit.max_positions / rate:g}"
            )
        if not 0 <= overlap <= self.window // 2:
            raise UserError(f"overlap_s={overlap_s:g} must be 0 to half of window_s={window_s:g}")
        self.stride = self.window - overlap
        self.ahead, self.behind = (
            encoder_context(self.codec.config),
            decoder_context(self.codec.config),
        )
        self.sampler = sampler
        self.text = TextMemory.of(text, compiled, tokenizer)
        self.spans = spans
        self._random = np.random.default_rng(seed)
        self._wave, self._mixture = SlidingBuffer(), SlidingBuffer(config.channels)
        self._noise, self._latents = (
            SlidingBuffer(2 * config.channels),
            SlidingBuffer(2 * config.channels),
        )
        self._next = self._decoded = 0  # start of the next window and decoded frames, in frames
        self._last: tuple[int, Array] | None = None  # start and velocities of the last window

    @property
    def window_ends(self) -> tuple[int, int]:
        """Samples after which the first window is solved, and between this and each next one."""
        hop = self.codec.config.hop
        return (self.window + self.ahead) * hop, self.stride * hop

    @property
    def latency_s(self) -> float:
        """Seconds of a window and of the context of encoder and decoder after it."""
        return (self.window + self.ahead + self.behind) / self.codec.config.frame_rate

    def append(self, samples: Float[np.ndarray, " samples"]) -> Iterator[Pair]:
        """Appends samples of the mixture; yields samples of the stems for each complete window."""
        self._wave.append(samples)
        hop = self.codec.config.hop
        while self._wave.stop >= (end := self._next + self.window + self.ahead) * hop:
            self._encode(end - self.window - self.ahead, end, end - self.ahead)
            self._solve(self._next, self._next + self.stride)
            self._next += self.stride
            yield self._decode(self._latents.stop - self.behind)

    def finish(self) -> Pair:
        """The rest of the stems; the last window ends with the mixture, as in long recordings."""
        size, kept = self._wave.stop, self._wave.start
        if not size:
            return np.zeros((0, 2), np.float32)
        frames, returned = self.codec.config.frames(size), self._decoded * self.codec.config.hop
        self._wave.append(
            pad_to_hop(self._wave.read(kept, size), self.codec.config.hop)[size - kept :]
        )
        self.window = min(self.window, frames)
        last = frames - self.window
        self._encode(max(0, last - self.ahead), frames, frames)
        pieces = []
        for start in [*range(self._next, last, self.stride), last]:
            self._solve(start, frames if start == last else start + self.stride)
            pieces.append(
                self._decode(frames if start == last else self._latents.stop - self.behind)
            )
        return np.concatenate(pieces)[: size - returned]

    def _encode(self, start: int, end: int, until: int) -> None:
        """Appends latents of the mixture up to `until`, encoded from `start` to `end`.

        Frames near `start` lack their left context; they are known from earlier calls.
        """
        hop, known = self.codec.config.hop, self._mixture.stop
        start = max(0, min(start, known - self.ahead))
        wave = self._wave.read(start * hop, end * hop)
        latents = encode_chunked(self._compiled_codec, wave[None], frames=end - start)[0]
        self._mixture.append(latents[known - start : until - start])
        self._wave.forget(hop * min(self._next, until - self.ahead))

    def _solve(self, start: int, until: int) -> None:
        """Solves the window at `start` and appends its latents up to `until`, which are final."""
        stop, rate, hop = start + self.window, self.codec.config.sample_rate, self.codec.config.hop
        fresh = (stop - self._noise.stop, self._noise.read(0, 0).shape[1])
        self._noise.append(self._random.standard_normal(fresh, np.float32))
        anchors = frame_anchors(self.spans, start, stop, sample_rate=rate, hop=hop)
        recording = WindowedRecording(
            mixture=jnp.asarray(self._mixture.read(start, stop)),
            anchors=jnp.asarray(anchors),
            video=None,
            text=self.text,
        )
        noise = jnp.asarray(self._noise.read(start, stop))
        if self._last is None:
            evaluations = (self.sampler.steps, self.sampler.evaluations_per_step)
            before, past = start, jnp.zeros((*evaluations, 1, *noise.shape))
            overlap_weight = np.zeros(self.window, np.float32)
        else:
            before, past = self._last
            overlap_weight = self._overlap_weight(before + self.window - np.arange(start, stop))
        solved, velocities = self.compiled(
            _solve,
            recording,
            noise,
            past,
            jnp.asarray(start - before, jnp.int32),
            jnp.asarray(overlap_weight),
            rows=self.compiled.batch_shards,
            sampler=self.sampler,
        )
        known = self._latents.stop
        self._latents.append(np.asarray(solved)[known - start : until - start])
        self._last = start, velocities
        self._noise.forget(start)
        self._mixture.forget(start)

    def _overlap_weight(self, left: Int[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
        """The last window's weight for frames that are `left` frames before its end.

        It is 1 where its latents are final, then falls as the triangles of `lay_windows`.
        """
        return np.clip(left / (self.window - self.stride + 1), 0, 1).astype(np.float32)

    def _decode(self, until: int) -> Pair:
        """Samples of the frames from the end of the last call to `until`."""
        done, stop, hop = self._decoded, self._latents.stop, self.codec.config.hop
        if until <= done:
            return np.zeros((0, 2), np.float32)
        width = self.stride + 2 * self.behind  # of every call but the first: one compilation
        start = max(0, min(done - self.behind, stop - width))
        latents = self._latents.read(start, stop)
        stems = np.moveaxis(latents.reshape(len(latents), 2, -1), 1, 0)
        waves = decode_chunked(self._compiled_codec, stems, frames=width)
        self._decoded = until
        self._latents.forget(min(until - self.behind, stop - width))
        return waves[:, (done - start) * hop : (until - start) * hop].T
