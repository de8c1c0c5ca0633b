"""The codec of the shipped `tiny` model: DAC-VAE at 16 kHz, 25 Hz x 12, 3 M parameters.

sam-audio train-codec codec_tiny --workdir runs/wide --codec.codebook-dim 64
sam-audio train-codec codec_tiny --workdir runs/codec_tiny \\
    --init-from runs/wide --optim.peak-lr 2e-4 --optim.rate-decay 0.996 --steps 450

sam-audio train-codec codec_tiny@mask --workdir runs/codec_mask --init-from tiny

`@mask` goes on with the decoder alone, for stems that become masks; the latents, and with them the
separators trained on them, stay.

The codec is trained wide, then narrowed: after so short a training 10 principal components of 64
latent channels carry all that is audible, and a separator would waste its capacity on the others.
The losses are the published ones on the four mel scales that matter at 16 kHz, without
discriminators; faint bands count less. Batches are small and the rate is six times the published
one, because two CPU cores make few steps.
"""

import dataclasses

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.codec.loss import CodecLossConfig
from sam_audio_jax.data.excerpts import ExcerptConfig
from sam_audio_jax.train.config import CheckpointConfig, CodecTrainConfig, GanOptimConfig

CODEC = CodecConfig(
    sample_rate=16_000,
    encoder_dim=16,
    encoder_rates=(4, 4, 4, 10),
    latent_dim=256,
    decoder_dim=256,
    decoder_rates=(10, 4, 4, 4),
    codebook_dim=12,
    watermark_rates=(),
)

CONFIG = CodecTrainConfig(
    codec=CODEC,
    loss=CodecLossConfig(
        adversarial=0.0,
        feature_matching=0.0,
        kl=1e-4,
        mel_offset=3e-3,
        mel_scales=((128, 20), (256, 40), (512, 80), (1024, 80)),
    ),
    data=ExcerptConfig(seconds=0.64),
    optim=GanOptimConfig(
        peak_lr=6e-4, warmup_steps=50, clip_norm=100.0, rate_decay=0.9996, ema_decay=0.998
    ),
    checkpoint=CheckpointConfig(every_steps=500, every_minutes=5.0, keep_last=2, keep_best=0),
    batch=3,
    steps=8_000,
)

RECIPES = {
    "mask": dataclasses.replace(
        CONFIG,
        loss=dataclasses.replace(CONFIG.loss, mask=1.0),
        data=ExcerptConfig(seconds=1.28),
        frozen=("encoder", "in_proj"),
        batch=4,
        init_from="tiny",
        optim=dataclasses.replace(CONFIG.optim, peak_lr=3e-4, rate_decay=1.0),
        steps=20_000,
    )
}
