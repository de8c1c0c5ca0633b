"""Pre-training of `large` (arXiv 2512.18099, table 12; spec/training.md, "Schedule").

python launch/train.py configs/large.py --workdir runs/large --codec-checkpoint DIR
"""

from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.train.config import OptimConfig, TrainConfig

CONFIG = TrainConfig(
    separator=SeparatorConfig(
        dit=DitConfig(depth=22, width=2816, heads=22, mlp=7552, dtype="bfloat16", remat="full")
    ),
    data=DataConfig(seconds=30.0, snr_db=(-15.0, 15.0), workers=8, tokenizer="t5-base"),
    optim=OptimConfig(peak_lr=1e-4, warmup_steps=5_000, weight_decay=0.1),
    batch=1024,
    steps=500_000,
)
