"""The error of the refined target, through the frozen decoder: a loss beside that of the flow.

The flow's loss counts an error of the latents alike in every channel and frame. What a listener of
a refined separation gets is the recording under a mask of the decoded stems (`infer/refine.py`), on
which some errors have no effect, and others all. One evaluation of the velocity gives an estimate
of the data; an excerpt of it is decoded, and the loss is the error of its mask against the true
stems (docs/training.md, "Refined loss"). It is ours, for models that are solved in few steps.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from sam_audio_jax.bounds import Checked, NonNegative, Positive, Seconds
from sam_audio_jax.codec.chunked import decoder_context
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.codec.mask_loss import mask_error, mask_spectra, power_gain

ABSENT = 0.003  # a weaker sound than that, of the mixture's power, counts as if it had it: -25 dB


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedConfig(Checked, where="refined"):
    """The loss of the refined target; all values are ours."""

    weight: NonNegative = 0.0  # of the error in dB; 0: off
    seconds: Seconds = 1.0  # of each example that are decoded, at one place in all of a batch
    exponent: Positive = 0.45  # of the mask, as the model's refinement has it
    # dB below the weaker of the two sounds, at which an error is small enough.
    tolerance_db: Positive = 15.0


def refined_error_db(
    codec: Codec,
    latents: Float[Array, "batch frames state"],
    stems: Shaped[Array, "batch two samples"],
    key: Key[Array, ""],
    config: RefinedConfig,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Error of the refined target in an excerpt, below the weaker sound of the example, in dB.

    `latents` are estimates of target and residual side by side, `stems` their true waves, whole
    frames; the excerpt's place is drawn by `key`. Its energy is compared with the mean power of
    the weaker sound over the whole example, so that a quiet moment counts little.

    Returns:
      The mean over examples with errors below the tolerance held at it, which is the loss, and the
      mean as it is, down to -40 dB.
    """
    stems = stems.astype(jnp.float32)
    error = _excerpt_error(codec, latents, stems, key, config)
    mixture = jnp.mean(jnp.square(jnp.sum(stems, axis=1)), axis=-1)
    weaker = jnp.min(jnp.mean(jnp.square(stems), axis=-1), axis=1)
    wanted = jnp.maximum(weaker, ABSENT * mixture) * power_gain(codec.config.sample_rate)
    ratio = error / (wanted + 1e-12)
    sounding = mixture > 1e-9
    held, plain = (
        jnp.sum(sounding * 10 * jnp.log10(ratio + least)) / jnp.maximum(jnp.sum(sounding), 1)
        for least in (10 ** (-config.tolerance_db / 10), 1e-4)
    )
    return held, plain


def _excerpt_error(
    codec: Codec,
    latents: Float[Array, "batch frames state"],
    stems: Float[Array, "batch two samples"],
    key: Key[Array, ""],
    config: RefinedConfig,
) -> Float[Array, " batch"]:
    """Mean energy of the error of the refined target in the spectra of an excerpt."""
    sizes, frames = codec.config, latents.shape[1]
    context = decoder_context(sizes)
    counted = min(max(1, round(config.seconds * sizes.frame_rate)), frames)
    length = min(counted + 2 * context, frames)
    start = jax.random.randint(key, (), 0, frames - length + 1)
    excerpt = jax.lax.dynamic_slice_in_dim(latents, start, length, axis=1)
    true = jax.lax.dynamic_slice_in_dim(stems, start * sizes.hop, length * sizes.hop, axis=2)
    by_stem = jnp.stack(jnp.split(excerpt, 2, axis=-1), axis=1)  # a sharded batch stays sharded
    decoded = codec.decode(by_stem.reshape(-1, *by_stem.shape[2:])).reshape(true.shape)
    rate = sizes.sample_rate
    target, residual, decoded_target, decoded_residual = (
        mask_spectra(wave[:, n], rate) for wave in (true, decoded) for n in (0, 1)
    )
    wrong = mask_error(target, residual, decoded_target, decoded_residual, rate, config.exponent)
    error = jnp.mean(jnp.sum(jnp.square(wrong), axis=-1), axis=-1)
    # What the decoder makes of the ends of an excerpt counts only where the example ends, too.
    number, spectra = jnp.arange(error.shape[1]), error.shape[1]
    end = (length - counted) // 2 * spectra // length
    counts = (number >= end) | (start == 0)
    counts &= (number < spectra - end) | (start == frames - length)
    return jnp.sum(error * counts, axis=1) / jnp.sum(counts)
