"""Which examples are halves of a pair, and which are prompted for a sound that they do not hold.

Both are functions of the seed and the number of an example alone, drawn from generators of their
own, so that an example that is neither is the same whatever the shares are.
"""

import logging

import numpy as np
from jaxtyping import Float

from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.likeness import Present
from sam_audio_jax.data.prompter import Example, Prompter

PAIR, SECOND, ABSENT = 3, 4, 5  # generators (seed, number, index); caches have 1, buckets 2

log = logging.getLogger(__name__)


def is_paired(config: DataConfig, index: int) -> bool:
    """Whether an example is one of a pair, of 2 k and 2 k + 1, that have one mixture."""
    share = config.prompts.pair_share
    return bool(share) and np.random.default_rng((config.seed, PAIR, index // 2)).random() < share


def second_rng(config: DataConfig, index: int) -> np.random.Generator:
    """The generator of the prompts of a pair's second example."""
    return np.random.default_rng((config.seed, SECOND, index))


def absent_rng(config: DataConfig, index: int) -> np.random.Generator | None:
    """The generator of the absent prompt of an example; None if it has a prompt of its own."""
    share = config.prompts.absent_share
    if not share:
        return None
    rng = np.random.default_rng((config.seed, ABSENT, index))
    return rng if rng.random() < share else None


def as_absent(
    example: Example,
    silence: Float[np.ndarray, "..."],
    texts: tuple[str, ...],
    present: Present,
    prompter: Prompter,
    rng: np.random.Generator,
) -> Example:
    """The example prompted by one of `texts`: its target is silence, its residual the mixture.

    An example for which no absent sound was found keeps its own prompt.
    """
    if not texts:
        log.warning("no caption is absent from a mixture of %s", ", ".join(sorted(present.phrases)))
        return example
    size, frames = int(example["valid"].sum()), len(example["valid"])
    changed = prompter.draw_absent(texts, present.phrases, size, frames, rng)
    changed |= {"target": silence, "residual": example["mixture"].copy()}
    if "waves" in example:
        mixture = example["waves"].astype(np.float32).sum(axis=0).astype(np.float16)
        changed["waves"] = np.stack([np.zeros_like(mixture), mixture])
    if "video" in example:
        changed["video"] = np.zeros_like(example["video"])
    return example | changed
