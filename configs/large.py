r"""`large`, 3 B parameters: pre-training and fine-tuning on three slices (arXiv 2512.18099).

sam-audio prepare large --out caches/pretraining --codec-checkpoint DIR \
    --alignment.teacher-checkpoint CNN14.pth
sam-audio train large@v5e-256 --workdir runs/large --codec-checkpoint DIR
sam-audio prepare large@finetune-v5e-256 --out caches/finetuning --codec-checkpoint DIR
sam-audio train large@finetune-v5e-256 --workdir runs/fine --codec-checkpoint DIR \
    --init-from runs/large
sam-audio train large@few-steps-v5e-256 --workdir runs/few --codec-checkpoint DIR \
    --init-from runs/fine

`sam-audio plan large@SLICE` shows what a layout needs, with --search it tries others.
"""

from sam_audio_jax.recipes import paper
from sam_audio_jax.separator.dit import DitConfig

RECIPES = paper(
    DitConfig(depth=22, width=2816, heads=22, mlp=7552),
    token_budget=144_000,
    remat={"v5e-256": "dots", "v5p-512": "none", "v6e-256": "dots"},
)
CONFIG = RECIPES["v5e-256"]
