"""Batches of noise in the form that the separator's training takes."""

import numpy as np

ROWS, FRAMES, TOKENS = 8, 6, 8


def random_batch(*stem_shape: int) -> dict[str, np.ndarray]:
    """Mixtures of two stems of this shape, samples or frames by channels, with a text each."""
    rng = np.random.default_rng(0)
    target, residual = rng.normal(size=(2, ROWS, *stem_shape)).astype(np.float32)
    return {
        "mixture": target + residual,
        "target": target,
        "residual": residual,
        "valid": np.ones((ROWS, FRAMES), bool),
        "text_ids": rng.integers(3, 200, size=(ROWS, TOKENS)).astype(np.int32),
        "text_mask": np.ones((ROWS, TOKENS), bool),
        "anchors": np.zeros((ROWS, FRAMES), np.int32),
    }
