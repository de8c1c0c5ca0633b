"""Pre-training of `base` (arXiv 2512.18099, table 12; spec/training.md, "Schedule").

python launch/train.py configs/base.py --workdir runs/base --codec-checkpoint DIR
"""

from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.train.config import OptimConfig, TrainConfig

CONFIG = TrainConfig(
    separator=SeparatorConfig(
        dit=DitConfig(depth=16, width=2048, heads=16, mlp=5504, dtype="bfloat16", remat="full")
    ),
    data=DataConfig(seconds=30.0, snr_db=(-15.0, 15.0), workers=8, tokenizer="t5-base"),
    optim=OptimConfig(peak_lr=1e-4, warmup_steps=5_000, weight_decay=0.1),
    batch=1024,
    steps=500_000,
)
