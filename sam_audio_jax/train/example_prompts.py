"""Prompts by example in the training of the separator (docs/training.md, "Prompts by example").

The example of a row is its own target: what the audio tower makes of its latents. So that the
vector says what sounds and not how, some of its numbers are left out, and in some rows it is a
blend with the mean of the text, as in CLAPSep (arXiv 2402.17455, whose two sides learn together;
here both are frozen).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from sam_audio_jax.encoders.audio_tower import AudioTower
from sam_audio_jax.encoders.text_means import mean_of_words, unit, words_of
from sam_audio_jax.nn.embed import dropout
from sam_audio_jax.separator.prompts import with_example
from sam_audio_jax.train.config import LikeConfig


def blended_prompts(
    tower: AudioTower,
    stems: dict[str, Float[Array, "batch frames channels"]],
    valid: Bool[Array, "batch frames"],
    text: Float[Array, "batch tokens text_width"],
    text_mask: Bool[Array, "batch tokens"],
    key: Key[Array, ""],
    config: LikeConfig,
) -> tuple[Float[Array, "batch more_tokens text_width"], Bool[Array, "batch more_tokens"]]:
    """The memory of the texts with the vectors of `config.share` of the targets.

    `text` are word vectors. Rows without an example have their text as it was.
    """
    draws = jax.random.split(key, 5)
    rows = (len(text),)
    # The target of a prompt for a sound that is absent is silence, of which there is no example:
    # there, and only there, the residual is the mixture itself.
    sounding = jnp.any(stems["residual"] != stems["mixture"], axis=(1, 2))
    present = sounding & jax.random.bernoulli(draws[0], config.share, rows)
    alone = present & jax.random.bernoulli(draws[1], config.alone, rows)
    means = mean_of_words(text, text_mask)
    words, ends = words_of(text_mask)
    blends = jnp.any(words, axis=1) & jax.random.bernoulli(draws[2], config.blend, rows)
    weight = jnp.where(blends, jax.random.uniform(draws[3], rows), 0)[:, None]
    sounds = jax.lax.stop_gradient(tower(stems["target"], valid))
    vectors = unit((1 - weight) * sounds + weight * unit(means))
    vectors = dropout(tower.as_words(vectors), config.dropout, draws[4])
    kept = jnp.where(alone[:, None], ends, text_mask)
    return with_example(text, kept, jax.lax.stop_gradient(vectors), present)
