"""Encoding and decoding of any length in bounded memory (docs/codec.md, "Windows").

Every layer pads its input with zeros and has biases, so the end of a window differs from silence
there. All windows have one shape; the first begins and the last ends with the signal, and of each
only those frames are kept that do not depend on an end which the signal itself does not have.
"""

from collections.abc import Callable

import numpy as np

from sam_audio_jax.codec.codec import Codec, CodecConfig, pad_to_hop
from sam_audio_jax.codec.encoder import DILATIONS
from sam_audio_jax.nn.call import Compiled

UNIT = 3 * sum(DILATIONS)  # samples that three residual units look to each side


def encoder_context(config: CodecConfig) -> int:
    """Frames on each side that reach into a frame: 6 for the released rates."""
    left, right, jump = 3, 3, 1
    for stride in config.encoder_rates:
        left += (UNIT + stride // 2) * jump
        right += (UNIT + 2 * stride - 1 - stride // 2) * jump
        jump *= stride
    return -(-max(left + jump, right + 1) // jump)


def decoder_context(config: CodecConfig) -> int:
    """Frames on each side that a frame writes into: 8 for the released rates."""
    reach, jump = 3.0, 1
    for stride in reversed(config.decoder_rates):
        reach += UNIT * jump
        jump *= stride
        reach += jump
    return int(-(-(reach + 3 * jump) // jump))


def encode_chunked(codec: Compiled[Codec], wave: np.ndarray, *, frames: int = 500) -> np.ndarray:
    """`(batch, samples)` -> `(batch, frames, channels)`, equal to `encode` of the padded whole.

    `frames` is the length of a window. Besides the wave and the result, memory does not depend on
    the length of the wave.
    """
    config = codec.network.config

    def encode(window: np.ndarray) -> np.ndarray:
        whole = pad_to_hop(window, config.hop)  # only the last is short
        return np.asarray(codec(Codec.encode, whole))

    return _slide(encode, wave, config.hop, 1, frames, encoder_context(config))


def decode_chunked(
    codec: Compiled[Codec],
    latents: np.ndarray,
    *,
    frames: int = 500,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """`(batch, frames, channels)` -> `(batch, samples)`, equal to `decode` of the whole.

    The result is written to `out`, if there is one.
    """
    config = codec.network.config

    def decode(window: np.ndarray) -> np.ndarray:
        return np.asarray(codec(Codec.decode, window))

    return _slide(decode, latents, 1, config.hop, frames, decoder_context(config), out)


def _slide(
    run: Callable[[np.ndarray], np.ndarray],
    signal: np.ndarray,
    step_in: int,
    step_out: int,
    frames: int,
    context: int,
    whole: np.ndarray | None = None,
) -> np.ndarray:
    """Windows of `frames` frames; an input frame has `step_in` elements, an output `step_out`."""
    total = -(-signal.shape[1] // step_in)
    frames = max(frames, 4 * context)
    if total <= frames:
        if whole is None:
            return run(signal)
        whole[...] = run(signal)
        return whole
    inner = frames - 2 * context
    starts = [*range(0, total - frames, inner), total - frames]
    done = 0
    for start in starts:
        y = run(signal[:, start * step_in : (start + frames) * step_in])
        if whole is None:  # one array: pieces to be joined would hold the result twice
            whole = np.empty((y.shape[0], total * step_out, *y.shape[2:]), y.dtype)
        until = (total if start == total - frames else start + frames - context) * step_out
        whole[:, done:until] = y[:, done - start * step_out : until - start * step_out]
        done = until
    assert whole is not None
    return whole
