"""Recordings of any length as vectors of the audio tower, through one program.

A recording is read in pieces as long as the training's, each encoded by itself. Their vectors are
averaged by the root of their energy, so that silence before and after a sound says nothing.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32

from sam_audio_jax import audio
from sam_audio_jax.codec.codec import Codec, frame_count, pad_to_hop
from sam_audio_jax.encoders.audio_tower import AudioTower, WaveTower
from sam_audio_jax.encoders.text_means import unit
from sam_audio_jax.nn.call import Compiled, padded_rows

ROWS = 8  # pieces at a time, on each shard of a batch


class AudioEmbedder:
    """Codec and tower, compiled for pieces of `frames` frames."""

    def __init__(
        self,
        codec: Codec,
        tower: AudioTower,
        *,
        frames: int,
        level_db: float | None = audio.USUAL_DB,
        mesh: Mesh | None = None,
    ):
        """`level_db`: the level to which sounds are brought, as in training; None: as they are."""
        self.codec, self.tower = codec, tower
        self.frames, self.level_db = frames, level_db
        self._compiled = Compiled(WaveTower(codec, tower), mesh)

    def __call__(
        self, waves: Sequence[Float[np.ndarray, " _"]]
    ) -> Float32[np.ndarray, "waves embedding"]:
        """A vector of length 1 for each mono wave at the codec's rate; zeros for silence."""
        rows, pieces, energies = [], [], []
        for row, wave in enumerate(waves):
            for piece in self._pieces(wave):
                rows.append(row)
                pieces.append(piece)
                energies.append(np.sqrt(np.sum(np.square(piece, dtype=np.float64))))
        total = np.zeros((len(waves), self.tower.config.embedding), np.float32)
        if pieces:
            weights = np.array(energies, np.float32)[:, None]
            np.add.at(total, rows, weights * self._vectors(pieces))
        return unit(total)

    def as_words(
        self, vectors: Float[np.ndarray, "waves embedding"]
    ) -> Float32[np.ndarray, "waves embedding"]:
        """The vectors at the length that the mean of a caption's word vectors has."""
        return np.asarray(self.tower.as_words(jnp.asarray(vectors)))

    def _pieces(self, wave: Float[np.ndarray, " samples"]) -> list[Float[np.ndarray, " _"]]:
        """The parts of a wave that are not silent, at the usual level, of whole frames."""
        config = self.codec.config
        if not wave.size or not np.any(wave):
            return []
        level = audio.measure_level(wave, config.sample_rate, self.level_db)
        whole = pad_to_hop(level.apply(wave), config.hop)
        size = self.frames * config.hop
        parts = (whole[start : start + size] for start in range(0, len(whole), size))
        return [part for part in parts if np.any(part)]

    def _vectors(
        self, pieces: Sequence[Float[np.ndarray, " _"]]
    ) -> Float32[np.ndarray, "pieces embedding"]:
        hop, shards = self.codec.config.hop, self._compiled.batch_shards
        found = []
        for first in range(0, len(pieces), ROWS * shards):
            chosen = pieces[first : first + ROWS * shards]
            rows = padded_rows(len(chosen), ROWS, shards)
            waves = np.zeros((rows, self.frames * hop), np.float32)
            valid = np.zeros((rows, self.frames), bool)
            valid[len(chosen) :] = True  # of rows that are left over, whose vectors are dropped
            for number, piece in enumerate(chosen):
                waves[number, : len(piece)] = piece
                valid[number, : frame_count(len(piece), hop)] = True
            vectors = self._compiled.on_batch(_embed, jnp.asarray(waves), jnp.asarray(valid))
            found.append(np.asarray(vectors)[: len(chosen)])
        return np.concatenate(found)


def _embed(
    network: WaveTower, waves: Float[Array, "batch samples"], valid: Bool[Array, "batch frames"]
) -> Float[Array, "batch embedding"]:
    return network(waves, valid)
