"""Losses and metrics of the codec: mel, KL and adversarial losses, STFT and waveform distances.

The released code base is DAC's with the KL of a VAE in place of the quantiser's losses; the numbers
are DAC's (docs/codec.md, "Training"). Everything here is float32 and pure.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.audio.signal import si_sdr
from sam_audio_jax.bounds import Checked, Count, NonNegative, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import spectral

Scales = tuple[tuple[int, int], ...]
Maps = list[list[Float[Array, "..."]]]  # of each sub-discriminator: its features, then its logits

MEL_SCALES: Scales = (  # published: window in samples, mel bands
    *((32, 5), (64, 10), (128, 20), (256, 40)),
    *((512, 80), (1024, 160), (2048, 320)),
)
STFT_WINDOWS = (2048, 512)  # published
FLOOR = 1e-5  # published: of magnitudes, before a logarithm


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecLossConfig(Checked, where="loss"):
    """Weights of the generator's losses (docs/codec.md, "Training"); 0 leaves a loss out."""

    mel: NonNegative = 15.0  # published
    feature_matching: NonNegative = 2.0  # published
    adversarial: NonNegative = 1.0  # published; 0: no discriminator, no feature matching
    kl: NonNegative = 1e-4  # ours; the KL is a sum over channels, without a factor 1/2
    waveform: NonNegative = 0.0  # published: logged, not weighted
    stft: NonNegative = 0.0  # published: logged, not weighted
    mask: NonNegative = 0.0  # ours: of the error of masked mixtures in dB (codec/mask_loss.py)
    adversarial_start: Count = 0  # ours: steps before the discriminator is run or trained
    mel_scales: tuple[tuple[Size, Size], ...] = MEL_SCALES  # (window in samples, mel bands), ...
    # Ours; added to mel magnitudes, so that fainter sounds count less.
    mel_offset: NonNegative = 0.0
    stft_windows: tuple[Size, ...] = STFT_WINDOWS  # samples

    def __post_init__(self):
        super().__post_init__()
        for window in (*(window for window, _ in self.mel_scales), *self.stft_windows):
            if window < 4 or window % 4:
                raise UserError(f"loss: window {window} must be a positive multiple of 4 samples")

    @property
    def needs_discriminator(self) -> bool:
        return self.adversarial > 0


def magnitude(
    wave: Float[Array, "batch samples"], window: int
) -> Float[Array, "batch frames bins"]:
    """Absolute value of the STFT; its gradient is 0, not infinite, where the sound is silent."""
    real, imaginary = spectral.stft(wave, window, window // 4)
    return jnp.sqrt(jnp.maximum(jnp.square(real) + jnp.square(imaginary), 1e-20))


def mel_losses(
    real: Float[Array, "batch samples"],
    fake: Float[Array, "batch samples"],
    sample_rate: int,
    scales: Scales = MEL_SCALES,
    offset: float = 0.0,
) -> list[Float[Array, ""]]:
    """Mean distance of log10 mel magnitudes, one number for each scale."""

    def log_mel(wave, window, bands):
        filters = mel_filters(sample_rate, window, bands)
        mel = jnp.matmul(magnitude(wave, window), filters, precision="highest")
        return jnp.log10(jnp.maximum(mel + offset, FLOOR))

    return [jnp.mean(jnp.abs(log_mel(fake, *scale) - log_mel(real, *scale))) for scale in scales]


def mel_loss(
    real: Float[Array, "batch samples"],
    fake: Float[Array, "batch samples"],
    sample_rate: int,
    scales: Scales = MEL_SCALES,
    offset: float = 0.0,
) -> Float[Array, ""]:
    """Multi-scale mel loss: the sum over the scales, not their mean."""
    return sum(mel_losses(real, fake, sample_rate, scales, offset), start=jnp.float32(0))


def stft_metric(
    real: Float[Array, "batch samples"],
    fake: Float[Array, "batch samples"],
    windows: Sequence[int] = STFT_WINDOWS,
) -> Float[Array, ""]:
    """Distance of log10 power plus distance of magnitude, summed over the windows."""
    total = jnp.float32(0)
    for window in windows:
        ours, theirs = magnitude(fake, window), magnitude(real, window)
        power = [2 * jnp.log10(jnp.maximum(x, FLOOR)) for x in (ours, theirs)]
        total += jnp.mean(jnp.abs(power[0] - power[1])) + jnp.mean(jnp.abs(ours - theirs))
    return total


def waveform_metric(
    real: Float[Array, "batch samples"], fake: Float[Array, "batch samples"]
) -> Float[Array, ""]:
    """Mean absolute difference of samples."""
    return jnp.mean(jnp.abs(fake - real))


def kl(
    mean: Float[Array, "batch frames channels"], stdev: Float[Array, "batch frames channels"]
) -> Float[Array, ""]:
    """KL to the unit Gaussian: summed over channels, averaged over the rest, no factor 1/2."""
    variance = jnp.square(stdev)
    return jnp.mean(jnp.sum(jnp.square(mean) + variance - jnp.log(variance) - 1, axis=-1))


def discriminator_loss(real: Maps, fake: Maps) -> Float[Array, ""]:
    """Least squares, summed over sub-discriminators: logits to 1 for real, to 0 for fake."""
    each = [
        jnp.mean(jnp.square(ours[-1])) + jnp.mean(jnp.square(1 - theirs[-1]))
        for ours, theirs in zip(fake, real, strict=True)
    ]
    return sum(each, start=jnp.float32(0))


def adversarial_loss(fake: Maps) -> Float[Array, ""]:
    """Least squares, summed over sub-discriminators: the generator drives logits of fakes to 1."""
    return sum((jnp.mean(jnp.square(1 - maps[-1])) for maps in fake), start=jnp.float32(0))


def feature_matching_loss(real: Maps, fake: Maps) -> Float[Array, ""]:
    """Mean absolute difference of each feature map, summed over all maps but the logits."""
    pairs = [
        (ours, jax.lax.stop_gradient(theirs))
        for fakes, reals in zip(fake, real, strict=True)
        for ours, theirs in zip(fakes[:-1], reals[:-1], strict=True)
    ]
    return sum((jnp.mean(jnp.abs(ours - theirs)) for ours, theirs in pairs), start=jnp.float32(0))


def codec_metrics(
    real: Float[Array, "batch samples"],
    fake: Float[Array, "batch samples"],
    sample_rate: int,
    config: CodecLossConfig | None = None,
) -> dict[str, Float[Array, ""]]:
    """The metrics of validation; checkpoints are selected by `mel`."""
    config = config or CodecLossConfig()
    return {
        "mel": mel_loss(real, fake, sample_rate, config.mel_scales, config.mel_offset),
        "stft": stft_metric(real, fake, config.stft_windows),
        "waveform": waveform_metric(real, fake),
        "si_sdr_db": jnp.mean(si_sdr(fake, real, zero_mean=True)),
    }
