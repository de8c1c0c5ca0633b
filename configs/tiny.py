"""The separator of the shipped `tiny` model: 5 M parameters on the `tiny` codec, bytes as text.

sam-audio prepare tiny --out runs/tiny_cache --items 3000
sam-audio train tiny --workdir runs/tiny --data.cache runs/tiny_cache

Made for two CPU cores: mixtures are rendered and encoded once, latents have 12 channels, the text
encoder is trained from scratch together with the separator, batches are small, flow times lean
towards the noisy end, where the choice of the source is made, and the rate is ten times the
published one.
"""

from codec_tiny import CODEC

from sam_audio_jax.data.config import DataConfig, MixConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.flow import FlowConfig, SamplerConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, TrainConfig

CONFIG = TrainConfig(
    codec=CODEC,
    text=T5Config(vocab_size=384, width=128, head_dim=32, heads=4, mlp=256, depth=2),
    separator=SeparatorConfig(
        dit=DitConfig(depth=6, width=192, heads=4, mlp=512, dropout=0.0, dtype="float32", unroll=6),
        channels=12,
        text_width=128,
        video_width=32,
        anchor_width=64,
    ),
    flow=FlowConfig(time="logit_normal", time_mean=-1.5, time_std=1.4),
    data=DataConfig(mix=MixConfig(seconds=8.0)),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=200, ema_decay=0.999, weight_decay=0.05),
    checkpoint=CheckpointConfig(every_steps=500, every_minutes=5.0, keep_last=2),
    train_text=True,
    sampler=SamplerConfig(method="euler", steps=1),
    batch=8,
    steps=40_000,
    eval_bench="embedded",
)
