"""An audio tower on the codec of `tiny`, among the word vectors of wordllama: for two CPU cores.

sam-audio convert --from wordllama --to runs/vectors
sam-audio train-audio-text audio_text_tiny --workdir runs/tower --data.cache CACHE \\
    --data.valid-cache HELD_OUT

One million parameters on crops of four seconds; CACHE is that of `tiny@words`, HELD_OUT one of the
recordings of its `valid` split. All numbers are ours.
"""

from sam_audio_jax.data.captioned_latents import CaptionedConfig
from sam_audio_jax.encoders.audio_tower import AudioTowerConfig
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.train.config import AudioTextTrainConfig, CheckpointConfig, OptimConfig

CONFIG = AudioTextTrainConfig(
    audio_tower=AudioTowerConfig(
        channels=12, embedding=256, audio=PeavConfig(depth=3, width=160, heads=4, mlp=320)
    ),
    data=CaptionedConfig(seconds=4.0),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=100, weight_decay=0.1, ema_decay=0.995),
    text_checkpoint="runs/vectors",
    checkpoint=CheckpointConfig(
        every_steps=500, every_minutes=5.0, keep_last=2, best_metric="top5/all"
    ),
    batch=64,
    steps=2_000,
    eval_every=250,
)
