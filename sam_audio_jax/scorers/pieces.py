"""Pieces of recordings at a network's sample rate, resampled on the devices, one batch at a time.

A network that reads windows of a fixed length sees recordings of any length and rate through a few
programs of fixed shapes; in memory beside the recordings is one batch of pieces. A piece has the
same samples as if all of its recording had been resampled.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from sam_audio_jax.nn.call import Compiled, padded_rows
from sam_audio_jax.scorers import front_end


@dataclasses.dataclass(frozen=True)
class WavePiece:
    """Where a piece is: `length` samples from `start` on of a recording, at the network's rate."""

    row: int  # of the recording
    start: int
    length: int  # at most that of the pieces' arrays, which are filled up with zeros


@dataclasses.dataclass(frozen=True, kw_only=True)
class PieceShape:
    """Pieces of `size` samples at `to_rate`, cut from recordings at `from_rate`."""

    size: int
    from_rate: int
    to_rate: int

    @property
    def _grid(self) -> tuple[int, int, int]:
        """Source samples and resampled ones of a stride; strides that the filter reaches."""
        divisor = math.gcd(self.from_rate, self.to_rate)
        stride, phases = self.from_rate // divisor, self.to_rate // divisor
        return stride, phases, -(-front_end.half_width(stride, phases) // stride)

    @property
    def source_size(self) -> int:
        """Source samples that a piece depends on, wherever it starts."""
        stride, phases, margin = self._grid
        strides = -(-(self.size + phases - 1) // phases)  # from any phase
        return (2 * margin + strides) * stride

    def resampled_length(self, samples: int) -> int:
        """The length of a recording of so many samples at `to_rate`."""
        return -(-samples * self.to_rate // self.from_rate)

    def cut(
        self, wave: Float[np.ndarray, " samples"], start: int
    ) -> tuple[Float32[np.ndarray, " source"], int]:
        """The source samples of the piece from `start` on, zeros beyond both ends.

        Also returns how many samples of the resampled source lie before the piece.
        """
        stride, phases, margin = self._grid
        first = start // phases
        source = np.zeros(self.source_size, np.float32)
        begin = (first - margin) * stride
        part = wave[max(begin, 0) : max(begin + len(source), 0)]
        offset = max(-begin, 0)
        source[offset : offset + len(part)] = part
        return source, (margin - first) * phases + start

    def resample(
        self,
        source: Float[Array, "batch source"],
        skipped: Int[Array, " batch"],
        lengths: Int[Array, " batch"],
    ) -> Float[Array, "batch {self.size}"]:
        """The pieces whose sources `cut` returned; zeros from their `lengths` on."""
        resampled = front_end.resample(source, self.from_rate, self.to_rate)

        def piece(row: Float[Array, " resampled"], first: Int[Array, ""]) -> Array:
            return jax.lax.dynamic_slice(row, (first,), (self.size,))

        pieces = jax.vmap(piece)(resampled, skipped)
        return jnp.where(jnp.arange(self.size) < lengths[:, None], pieces, 0)


def each_candidate(
    candidates: Float[np.ndarray, "batch candidates samples"], lengths: Int[np.ndarray, " batch"]
) -> list[Float[np.ndarray, " _"]]:
    """The candidates of all items, one after the other, without the padding of the batch."""
    return [
        wave[:length] for waves, length in zip(candidates, lengths, strict=True) for wave in waves
    ]


def embed_each(
    texts: Sequence[str],
    embed: Callable[[list[str]], Float[np.ndarray, "rows width"]],
    *,
    most: int,
    shards: int,
) -> Float[np.ndarray, "texts width"]:
    """Vectors of texts; each different text is embedded once, `most` at a time on each shard.

    `embed` gets lists of few lengths: the last one is filled up with its first text.
    """
    different = list(dict.fromkeys(texts))
    found: dict[str, np.ndarray] = {}
    for first in range(0, len(different), most * shards):
        chosen = different[first : first + most * shards]
        rows = padded_rows(len(chosen), most, shards)
        vectors = embed(chosen + chosen[:1] * (rows - len(chosen)))
        found |= dict(zip(chosen, vectors, strict=False))
    return np.stack([found[text] for text in texts])


def run_pieces(
    compiled: Compiled,
    program: Callable[..., Any],
    waves: Sequence[Float[np.ndarray, " _"]],
    pieces: Sequence[WavePiece],
    shape: PieceShape,
    *,
    batch: int,
    **static: Any,
) -> Float[np.ndarray, "pieces *rest"]:
    """What a program gives for each piece; `batch` pieces at a time on each shard of a batch.

    The last batch is padded to a power of two, so that few shapes are compiled. The program gets
    sources, skipped samples and lengths as arrays, for `PieceShape.resample`, and `static` by name.
    """
    shards = compiled.batch_shards
    results = []
    for first in range(0, len(pieces), batch * shards):
        chosen = pieces[first : first + batch * shards]
        rows = padded_rows(len(chosen), batch, shards)
        source = np.zeros((rows, shape.source_size), np.float32)
        skipped, lengths = np.zeros((2, rows), np.int32)
        for number, piece in enumerate(chosen):
            source[number], skipped[number] = shape.cut(waves[piece.row], piece.start)
            lengths[number] = piece.length
        result = compiled.on_batch(program, source, skipped, lengths, shape=shape, **static)
        results.append(np.asarray(result)[: len(chosen)])
    return np.concatenate(results)
