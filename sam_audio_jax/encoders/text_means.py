"""Texts as one vector each: the mean of their word vectors.

Where a text encoder has no layers its states are word vectors, in which words of one meaning are
near each other, and so are the means of texts. Sounds are mapped to the same space by
`audio_tower.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from sam_audio_jax import parallel
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.errors import UserError

SHORTEST = 1e-9  # length by which a vector of zeros is divided


def unit(vectors: Any) -> Any:
    """Vectors of length 1, along the last axis; zeros stay zeros."""
    numbers: Any = jnp if isinstance(vectors, jax.Array) else np
    length = numbers.sqrt(numbers.sum(numbers.square(vectors), axis=-1, keepdims=True))
    return vectors / numbers.maximum(length, SHORTEST)


def words_of(
    mask: Bool[Array, "batch tokens"] | Bool[np.ndarray, "batch tokens"],
) -> tuple[Any, Any]:
    """The tokens of texts that are words, and the one that ends each text: both as masks."""
    numbers: Any = jnp if isinstance(mask, jax.Array) else np
    last = numbers.sum(mask, axis=1, keepdims=True) - 1
    ends = numbers.arange(mask.shape[1])[None] == last
    return mask & ~ends, ends


def mean_of_words(
    states: Float[Array, "batch tokens width"] | Float[np.ndarray, "batch tokens width"],
    mask: Bool[Array, "batch tokens"] | Bool[np.ndarray, "batch tokens"],
) -> Any:
    """The mean vector of each text's words, `[batch, width]`; zeros for a text without any."""
    numbers: Any = jnp if isinstance(states, jax.Array) else np
    words, _ = words_of(mask)
    total = numbers.sum(states * words[:, :, None], axis=1)
    return total / numbers.maximum(numbers.sum(words, axis=1, keepdims=True), 1)


class TextMeans:
    """The mean word vectors of texts, by the table of a text encoder; on the host."""

    def __init__(
        self,
        encoder: T5Encoder,
        tokenizer: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
    ):
        """Raises `UserError` for a text encoder with layers, whose states are no word vectors."""
        if encoder.config.depth:
            raise UserError(
                "sounds are compared with word vectors, which a text encoder of "
                f"{encoder.config.depth} layers does not have (`sam-audio convert --from "
                "wordllama` makes one without)"
            )
        table = encoder.embed.embedding[...]
        if not table.is_fully_addressable:
            table = parallel.gather_to_local(table)
        self.table, self.tokenizer = np.asarray(table, np.float32), tokenizer

    def __call__(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
        """The mean of each text's word vectors, whose length says how much its words matter."""
        ids, mask = self.tokenizer(list(texts))
        return mean_of_words(self.table[ids], mask).astype(np.float32)
