"""The codec of the shipped `tiny` model: DAC-VAE at 16 kHz, 25 Hz x 64, 3 M parameters.

python launch/train_codec.py configs/codec_tiny.py --workdir runs/codec_tiny

Sizes are cut until two CPU cores train it in half an hour; the losses are the published ones, on
the four mel scales that matter at 16 kHz, without critics. Rates are for a short run: 10 times the
published one, falling by 7 in 1,000 steps.
"""

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
    codebook_dim=64,
    watermark_rates=(),
)

CONFIG = CodecTrainConfig(
    codec=CODEC,
    loss=CodecLossConfig(
        adversarial=0.0,
        feature_matching=0.0,
        kl=3e-3,
        mel_scales=((64, 10), (256, 40), (512, 80), (1024, 80)),
    ),
    data=ExcerptConfig(seconds=1.28),
    optim=GanOptimConfig(
        peak_lr=1e-3, warmup_steps=50, clip_norm=100.0, rate_decay=0.998, ema_decay=0.995
    ),
    checkpoint=CheckpointConfig(every_steps=200, every_minutes=5, keep_last=2, keep_best=0),
    batch=8,
    steps=1_500,
)
