r"""`base`, 1 B parameters: pre-training and fine-tuning on three slices (arXiv 2512.18099).

sam-audio prepare base --out caches/pretraining --codec-checkpoint DIR \
    --alignment.teacher-checkpoint CNN14.pth
sam-audio train base@v5e-256 --workdir runs/base --codec-checkpoint DIR
sam-audio prepare base@finetune-v5e-256 --out caches/finetuning --codec-checkpoint DIR
sam-audio train base@finetune-v5e-256 --workdir runs/fine --codec-checkpoint DIR \
    --init-from runs/base
sam-audio train base@few-steps-v5e-256 --workdir runs/few --codec-checkpoint DIR \
    --init-from runs/fine

`sam-audio plan base@SLICE` shows what a layout needs, with --search it tries others.
"""

from sam_audio_jax.recipes import paper
from sam_audio_jax.separator.dit import DitConfig

RECIPES = paper(
    DitConfig(depth=16, width=2048, heads=16, mlp=5504),
    token_budget=120_000,
    remat={"v5e-256": "dots", "v5p-512": "none", "v6e-256": "none"},
)
CONFIG = RECIPES["v5e-256"]
