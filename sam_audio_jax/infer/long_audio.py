"""Recordings of any length by multi-diffusion.

Source: arXiv 2512.18099; docs/training.md, "Long recordings".

Overlapping windows share one trajectory (separator/windows.py). The state of the whole recording
and its mixture stay on the device as latents, a hundredth of the waves' size; everything wider (the
transformer, its conditions, the codec) runs on a fixed number of windows at a time. The conditions
are prepared again at every evaluation: this is a thousandth of the work, and keeping them would
need 0.5 GB an hour for `large`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, NonNegative, Positive, Size
from sam_audio_jax.codec.chunked import decode_chunked, encode_chunked
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.encoders.tokenizer import pad_tokens
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.collate import LEAST_TOKENS, Tokenize
from sam_audio_jax.infer.solve import Networks
from sam_audio_jax.nn.call import Compiled, power_of_two
from sam_audio_jax.separator import flow, windows
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.separator.prompts import Conditions, Span, frame_anchors, with_example


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongAudioConfig(Checked, where="long_audio"):
    """The longest recording that is solved in one piece, and the windows of longer ones.

    Neither is longer than the `max_positions` of a model.
    """

    window_s: Positive = 20.0  # published
    overlap_s: NonNegative = 5.0  # published; of neighbouring windows
    one_shot_s: Positive = 30.0  # ours, as in pre-training; shorter recordings need no windows
    batch: Size = 8  # ours: windows evaluated at once, on each batch shard of a mesh

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.overlap_s < self.window_s:
            raise UserError(
                f"long_audio.overlap_s={self.overlap_s} must be 0 or more and below "
                f"long_audio.window_s={self.window_s}"
            )
        if self.one_shot_s < self.window_s:
            raise UserError(
                f"long_audio.one_shot_s={self.one_shot_s} must be "
                f"long_audio.window_s={self.window_s} or more"
            )

    def longest(self, codec: CodecConfig, max_positions: int) -> int:
        """Frames of the longest recording that is solved in one piece."""
        return min(round(self.one_shot_s * codec.frame_rate), max_positions)

    def window(self, codec: CodecConfig, max_positions: int) -> tuple[int, int]:
        """Frames of a window and of an overlap."""
        window = min(round(self.window_s * codec.frame_rate), max_positions)
        return window, min(round(self.overlap_s * codec.frame_rate), window - 1)


def _encode_text(
    networks: Networks, ids: Int[Array, "1 tokens"], mask: Bool[Array, "1 tokens"]
) -> Float[Array, "1 tokens text_width"]:
    """The text encoder's states: once for all windows."""
    return networks.text_encoder(ids, mask)


class TextMemory(NamedTuple):
    """The encoded text, to which every window of a recording attends."""

    states: Float[Array, "1 tokens text_width"]
    mask: Bool[Array, "1 tokens"]

    @classmethod
    def of(
        cls,
        text: str,
        networks: Compiled[Networks],
        tokenizer: Tokenize,
        like: Float[np.ndarray, " text_width"] | None = None,
    ) -> "TextMemory":
        """The encoded text, padded to one of a few lengths, and the vector of an example."""
        ids, mask = pad_tokens(*tokenizer([text]), least=LEAST_TOKENS)
        states = networks(_encode_text, ids, mask)
        if like is None:
            return cls(states, mask)
        return cls(*with_example(states, mask, jnp.asarray(like)[None], jnp.ones(1, bool)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowedRecording:
    """A whole recording on the frame grid, with the prompts of all its windows."""

    mixture: Float[Array, "frames channels"]
    anchors: Int[Array, " frames"]  # id of each frame
    video: Float[Array, "frames video_width"] | None  # None: no video
    text: TextMemory

    def conditions(
        self, starts: Int[Array, " batch"], window: int, separator: Separator
    ) -> Conditions:
        """The conditions of the windows at `starts`: every prompt, cut to each window."""
        batch = starts.shape[0]
        states, mask = self.text
        return Conditions.build(
            mixture=windows.cut(self.mixture, starts, window),
            text=jnp.broadcast_to(states, (batch, *states.shape[1:])),
            text_mask=jnp.broadcast_to(mask, (batch, mask.shape[1])),
            anchors=windows.cut(self.anchors, starts, window),
            video=None if self.video is None else windows.cut(self.video, starts, window),
            video_width=separator.config.video_width,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Windows in batches: the first `batches` rows of `starts`, the other rows are padding."""

    starts: Int[Array, "capacity batch"]
    weights: Float[Array, "capacity batch window"]
    batches: Int[Array, ""]

    @classmethod
    def of(cls, laid: windows.Windows, *, batch: int, shards: int) -> "Layout":
        """Batches of equal size, at most `batch` windows on each of `shards` devices.

        Capacities are powers of two, so that there are few shapes whatever the length.
        """
        count, window = laid.weights.shape
        batches = -(-count // (batch * shards))
        rows = shards * -(-count // (batches * shards))
        capacity = power_of_two(batches)
        starts = np.zeros(capacity * rows, np.int32)
        weights = np.zeros((capacity * rows, window), np.float32)
        starts[:count], weights[:count] = laid.starts, laid.weights
        return cls(
            starts=jnp.asarray(starts.reshape(capacity, rows)),
            weights=jnp.asarray(weights.reshape(capacity, rows, window)),
            batches=jnp.asarray(batches, jnp.int32),
        )

    def frames(self, overlap: int) -> int:
        """Frames of a recording's padded arrays: enough for a window in every row and column."""
        window = self.weights.shape[2]
        return window + (self.starts.size - 1) * (window - overlap)


def solve_windows(
    networks: Networks,
    recording: WindowedRecording,
    layout: Layout,
    noise: Float[Array, "frames state"],
    *,
    sampler: flow.SamplerConfig,
) -> Float[Array, "frames state"]:
    """Target and residual latents of the whole recording, side by side on channels."""
    separator, window = networks.separator, layout.weights.shape[2]

    def velocity(x: Array, time: Array) -> Array:
        def of_windows(pieces: Array, starts: Array) -> Array:
            pieces = parallel.constrain(pieces, "batch", "frames", "width")
            prepared = separator.prepare(recording.conditions(starts, window, separator))
            times = jnp.broadcast_to(time, pieces.shape[:1])
            size = sampler.step_size(times)
            return separator.velocity(pieces, times, prepared, step_size=size)

        return windows.merged_velocity(
            of_windows, x[0], layout.starts, layout.weights, layout.batches
        )[None]

    return flow.sample(velocity, noise[None], sampler)[0]


def codec_frames(codec: Compiled[Codec]) -> int:
    """Frames that the codec encodes or decodes at once: few where memory comes before speed.

    Most of a decoder's memory grows with them; below 64 more than a third of the work is overlap.
    """
    return 64 if codec.saves_memory else 500


class LongAudio:
    """Separates recordings of any length."""

    def __init__(
        self,
        compiled: Compiled[Networks],
        tokenizer: Tokenize,
        config: LongAudioConfig | None = None,
    ):
        self.compiled, self.networks = compiled, compiled.network
        self.codec = Compiled(compiled.network.codec)  # on one device: a stretch at a time
        self.tokenizer = tokenizer
        self.config = config or LongAudioConfig()
        self.codec_frames = codec_frames(self.codec)

    @property
    def longest(self) -> int:
        """Frames of the longest recording that needs no windows."""
        positions = self.networks.separator.config.dit.max_positions
        return self.config.longest(self.networks.codec.config, positions)

    def __call__(
        self,
        mixture: Float[np.ndarray, "frames channels"],
        noises: Float[np.ndarray, "candidates frames state"],
        *,
        text: str = "",
        spans: Sequence[Span] = (),
        features: Float[np.ndarray, "frames video_width"] | None = None,
        like: Float[np.ndarray, " text_width"] | None = None,
        sampler: flow.SamplerConfig,
        targets_only: bool = False,
    ) -> Float[np.ndarray, "candidates stems samples"]:
        """Target and residual waves, whole frames, of every x(0) in `noises`, one after the other.

        With `targets_only` no residual is decoded.
        A recording shorter than a window is one window of its own length: the one-shot solve.
        """
        frames = len(mixture)
        recording, layout = self.prepare(mixture, text, spans, features, like)
        stems_of = 1 if targets_only else 2
        hop = self.networks.codec.config.hop
        waves = np.empty((len(noises), stems_of, frames * hop), np.float32)
        for wave, noise in zip(waves, noises, strict=True):
            start = _pad_to(noise, recording.mixture.shape[0])
            latents = self.compiled(solve_windows, recording, layout, start, sampler=sampler)
            stems = np.asarray(latents)[:frames].reshape(frames, 2, -1)[:, :stems_of]
            self.decode(np.moveaxis(stems, 1, 0), wave)
        return waves

    def decode(
        self,
        stems: Float[np.ndarray, "stems frames channels"],
        waves: Float[np.ndarray, "stems samples"],
    ) -> None:
        """Decodes whole stems into `waves`, a stretch at a time; in little memory one by one."""
        rows = 1 if self.codec.saves_memory else len(stems)
        for start in range(0, len(stems), rows):
            part = slice(start, start + rows)
            decode_chunked(self.codec, stems[part], frames=self.codec_frames, out=waves[part])

    def encode(self, wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames channels"]:
        """The mixture's latents, encoded window by window."""
        return encode_chunked(self.codec, wave[None], frames=self.codec_frames)[0]

    def prepare(
        self,
        mixture: Float[np.ndarray, "frames channels"],
        text: str,
        spans: Sequence[Span],
        features: Float[np.ndarray, "frames video_width"] | None,
        like: Float[np.ndarray, " text_width"] | None = None,
    ) -> tuple[WindowedRecording, Layout]:
        """The arrays that do not depend on the noise; missing last features are zeros."""
        codec, separator = self.networks.codec, self.networks.separator
        frames = len(mixture)
        window, overlap = self.config.window(codec.config, separator.config.dit.max_positions)
        if frames < window:
            window, overlap = frames, 0
        laid = windows.lay_windows(frames, window, overlap)
        layout = Layout.of(laid, batch=self.config.batch, shards=self.compiled.batch_shards)
        padded = layout.frames(overlap)
        grid = {"sample_rate": codec.config.sample_rate, "hop": codec.config.hop}
        recording = WindowedRecording(
            mixture=_pad_to(mixture, padded),
            anchors=_pad_to(frame_anchors(spans, 0, frames, **grid), padded),
            video=None if features is None else _pad_to(features[:frames], padded),
            text=TextMemory.of(text, self.compiled, self.tokenizer, like),
        )
        return recording, layout


def _pad_to(array: np.ndarray, frames: int) -> Array:
    """Pads with zeros at the end of the recording, where only padding windows read."""
    extra = ((0, frames - len(array)), *((0, 0) for _ in array.shape[1:]))
    return jnp.asarray(np.pad(array, extra))
