r"""`small`, 500 M parameters: pre-training and fine-tuning on three slices (arXiv 2512.18099).

sam-audio prepare small --out caches/pretraining --codec-checkpoint DIR \
    --alignment.teacher-checkpoint CNN14.pth
sam-audio train small@v5e-256 --workdir runs/small --codec-checkpoint DIR
sam-audio prepare small@finetune-v5e-256 --out caches/finetuning --codec-checkpoint DIR
sam-audio train small@finetune-v5e-256 --workdir runs/fine --codec-checkpoint DIR \
    --init-from runs/small
sam-audio train small@few-steps-v5e-256 --workdir runs/few --codec-checkpoint DIR \
    --init-from runs/fine

`sam-audio plan small@SLICE` shows what a layout needs, with --search it tries others.
"""

from sam_audio_jax.recipes import paper
from sam_audio_jax.separator.dit import DitConfig

RECIPES = paper(
    DitConfig(depth=12, width=1536, heads=12, mlp=4096),
    token_budget=96_000,
    remat={"v5e-256": "none", "v5p-512": "none", "v6e-256": "none"},
)
CONFIG = RECIPES["v5e-256"]
