"""CLAP as a scorer of candidates: recordings of any length and rate, texts as people write them.

Rules for long recordings: docs/scoring.md, "CLAP".
"""

import copy
import dataclasses
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from sam_audio_jax.bounds import Checked, Seed, Size
from sam_audio_jax.encoders.tokenizer import PretrainedTokenizer
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers.clap import NORM_FLOOR, Clap
from sam_audio_jax.scorers.pieces import (
    PieceShape,
    WavePiece,
    each_candidate,
    embed_each,
    run_pieces,
)
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapScoring(Checked, where="clap"):
    """How recordings are brought to the tower."""

    # A recording longer than the tower's 10 s: one crop of it, as published, or all of it in
    # windows, whose embeddings are averaged by their lengths.
    long: Literal["crop", "windows"] = "crop"
    # None: the crop is the middle. Else its start is drawn from the seed and the recording's
    # length, so that all candidates of an item are cropped alike. The reference draws anew each
    # time.
    crop_seed: Seed | None = None
    via_wav: bool = False  # through a 16-bit WAV file first, as the published metric does
    batch: Size = 8  # pieces or texts at a time, on each shard of a batch


class ClapScorer:
    """The cosine of each candidate with the text of its prompt, -1 to 1."""

    needs: Needs = "text"
    axes: tuple[str, ...] = ("clap",)

    def __init__(
        self,
        network: Clap,
        tokenizer: PretrainedTokenizer,
        scoring: ClapScoring | None = None,
        mesh: Mesh | None = None,
    ):
        """`tokenizer` is RoBERTa's. Raises UserError for one that does not fit the network."""
        text, pretrained = network.config.text, tokenizer.pretrained
        if pretrained.pad_token_id != text.padding_id or len(pretrained) > text.vocab_size:
            raise UserError(
                f"the tokenizer does not fit CLAP: it has {len(pretrained)} tokens and padding "
                f"token {pretrained.pad_token_id}, the network reads at most {text.vocab_size} "
                f"with padding token {text.padding_id}"
            )
        self.config, self.tokenizer = network.config, tokenizer
        self.scoring = scoring or ClapScoring()
        self._network = Compiled(network, mesh)

    def with_scoring(self, scoring: ClapScoring) -> "ClapScorer":
        """The same network on its devices, with other settings."""
        other = copy.copy(self)
        other.scoring = scoring
        return other

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """Cosines of all candidates; the mixtures are not looked at.

        Warns of a text that is too long to be read whole.
        """
        waves = each_candidate(candidates, lengths)
        audio = self.embed_waves(waves, sample_rate).reshape(*candidates.shape[:2], -1)
        texts = self.embed_texts([view.text for view in prompts])
        return {self.axes[0]: np.einsum("bke,be->bk", audio, texts)}

    def embed_waves(
        self, waves: Sequence[Float[np.ndarray, " _"]], sample_rate: int
    ) -> Float32[np.ndarray, "waves embedding"]:
        """One vector of length 1 for each wave, whatever its length.

        Raises UserError for a wave without samples.
        """
        shape = PieceShape(
            size=self.config.samples, from_rate=sample_rate, to_rate=self.config.sample_rate
        )
        pieces = [
            WavePiece(row, start, length)
            for row, wave in enumerate(waves)
            for start, length in self._parts(shape.resampled_length(len(wave)))
        ]
        scoring = self.scoring
        vectors = run_pieces(
            *(self._network, embed_pieces, waves, pieces, shape),
            batch=scoring.batch,
            via_wav=scoring.via_wav,
        )
        total = np.zeros((len(waves), vectors.shape[1]), np.float32)
        weights = np.array([piece.length for piece in pieces], np.float32) / self.config.samples
        np.add.at(total, [piece.row for piece in pieces], weights[:, None] * vectors)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), NORM_FLOOR)

    def _parts(self, length: int) -> list[tuple[int, int]]:
        """Start and length of each part of a recording that the tower reads."""
        size = self.config.samples
        if not length:
            raise UserError("CLAP cannot score a recording without samples")
        if length <= size:
            return [(0, length)]
        if self.scoring.long == "windows":
            return [(start, min(size, length - start)) for start in range(0, length, size)]
        if self.scoring.crop_seed is None:
            return [((length - size) // 2, size)]
        rng = np.random.default_rng([self.scoring.crop_seed, length])
        return [(int(rng.integers(length - size + 1)), size)]

    def embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts embedding"]:
        """One vector of length 1 for each text; warns of texts that are too long."""
        for text in dict.fromkeys(texts):
            if cut := self.tokenizer.describe_cut(text, self.config.tokens):
                warnings.warn(f"a text for CLAP {cut}", stacklevel=2)

        def embed(rows: list[str]) -> Float32[np.ndarray, "rows embedding"]:
            ids, mask = self.tokenizer(rows, self.config.tokens)
            return np.asarray(self._network.on_batch(Clap.embed_text, ids, mask))

        shards = self._network.batch_shards
        return embed_each(texts, embed, most=self.scoring.batch, shards=shards)


def embed_pieces(
    network: Clap,
    source: Float[Array, "batch source"],
    skipped: Int[Array, " batch"],
    lengths: Int[Array, " batch"],
    *,
    shape: PieceShape,
    via_wav: bool,
) -> Float[Array, "batch embedding"]:
    """The vectors of pieces whose sources `PieceShape.cut` returned."""
    waves = shape.resample(source, skipped, lengths)
    return network.embed_audio(waves, lengths, via_wav=via_wav)
