"""Filter banks that checkpoints store beside their weights: a check that ours is the same."""

import numpy as np

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.convert.tensors import State
from sam_audio_jax.errors import UserError

TOLERANCE = 1e-4  # relative to the largest value


def check_filter_bank(
    state: State,
    name: str,
    *,
    what: str,
    sample_rate: int,
    window: int,
    mels: int,
    low_hz: float,
    high_hz: float,
) -> None:
    """Raises `UserError` where a state holds another bank than ours; `what` is its network."""
    if name not in state:
        return
    theirs = np.asarray(state[name])
    ours = mel_filters(sample_rate, window, mels, low_hz, high_hz)
    if theirs.shape != ours.shape or not np.abs(theirs - ours).max() <= TOLERANCE * ours.max():
        raise UserError(
            f"{what} checkpoint was trained with another {name} than {mels} bands of "
            f"{low_hz:g} to {high_hz:g} Hz at {sample_rate} Hz"
        )
