"""DAC-VAE, the latent space in which SAM Audio separates."""

from sam_audio_jax.codec.codec import Codec, CodecConfig, pad_to_hop

__all__ = ["Codec", "CodecConfig", "pad_to_hop"]
