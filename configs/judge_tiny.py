"""A small judge for a CPU: the same network on the codec of the shipped `tiny` and on word vectors.

Two stages: its encoders learn which sound has which text, from true stems
(`judge_tiny@encoders`), then all but codec and text model learn the ratings. The audio encoder
learns on, unlike that of the released judge: what it needs to hear of damage is not in the texts.
Tables: docs/scoring.md, "Simulated ratings".

sam-audio convert --from wordllama --to runs/vectors
sam-audio train-judge judge_tiny@encoders --workdir runs/encoders --data.table STEMS.jsonl \\
    --data.tokenizer runs/vectors
sam-audio train-judge judge_tiny --workdir runs/judge --init-from runs/encoders/judge \\
    --data.table RATINGS.jsonl --data.valid-table VALID.jsonl

All numbers are ours.
"""

import dataclasses

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
            vocab_size=32_000, width=64, depth=2, heads=2, mlp=96, window=16, global_every=1
        ),
        bottleneck=64,
        sample_rate=16_000,
        encoder_dim=16,
        encoder_rates=(4, 4, 4, 10),
        latent_dim=256,
        channels=12,
        mask_attention=True,
    ),
    data=RatingsConfig(seconds=4.0, tokenizer="", normalizes_text=True, text_tokens=16),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=100, weight_decay=0.01, ema_decay=0.99),
    frozen=("wave_encoder", "project", "text"),
    init_from="runs/encoders/judge",
    rescale=True,
    checkpoint=CheckpointConfig(
        every_steps=500, every_minutes=5.0, keep_last=1, best_metric="pcc/utterance/overall/all"
    ),
    batch=32,
    steps=4_000,
    eval_every=1_000,
)

RECIPES = {
    "encoders": dataclasses.replace(
        CONFIG,
        loss="contrast",
        frozen=("wave_encoder", "text_vectors"),
        init_from="",
        rescale=False,
        codec_from="tiny",
        vectors_from="wordllama",
        checkpoint=CheckpointConfig(every_steps=500, every_minutes=5.0, keep_last=1),
        batch=64,
    )
}
