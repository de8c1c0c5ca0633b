"""A small judge for a CPU: the same network on the codec of the shipped `tiny`.

sam-audio train-judge judge_tiny --workdir runs/judge --data.table RATINGS.jsonl \\
    --data.valid-table VALID.jsonl

The encoder of the codec (1.5 M parameters) is frozen; the rest (1.2 M) learns, from random weights.
All numbers are ours.
"""

from sam_audio_jax.data.ratings import RatingsConfig
from sam_audio_jax.encoders.modernbert import ModernBertConfig
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.scorers.judge import JudgeConfig
from sam_audio_jax.train.config import CheckpointConfig, JudgeTrainConfig, OptimConfig

CONFIG = JudgeTrainConfig(
    judge=JudgeConfig(
        audio=PeavConfig(depth=3, width=128, heads=2, mlp=256),
        scoring=PeavConfig(depth=2, width=64, heads=2, mlp=128),
        text=ModernBertConfig(
            vocab_size=384, width=128, depth=3, heads=2, mlp=192, window=16, global_every=3
        ),
        bottleneck=64,
        sample_rate=16_000,
        encoder_dim=16,
        encoder_rates=(4, 4, 4, 10),
        latent_dim=256,
        channels=12,
        mask_attention=True,
    ),
    data=RatingsConfig(seconds=6.0),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=100, weight_decay=0.01, ema_decay=0.995),
    codec_from="tiny",
    frozen=("wave_encoder",),
    checkpoint=CheckpointConfig(
        every_steps=500, every_minutes=5.0, keep_last=2, best_metric="pcc/utterance/overall/all"
    ),
    batch=16,
    steps=4_000,
    eval_every=500,
)
