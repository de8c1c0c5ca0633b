r"""`base`, 1 B parameters: pre-training and fine-tuning on three slices (spec/training.md).

python launch/prepare.py configs/base.py --out caches/pretraining --codec-checkpoint DIR \
    --alignment.teacher-checkpoint CNN14.pth
python launch/train.py configs/base.py@v5e-256 --workdir runs/base --codec-checkpoint DIR
python launch/train.py configs/base.py@finetune-v5e-256 --workdir runs/fine --init-from runs/base

`launch/plan.py configs/base.py@SLICE` tells what a layout needs, with --search it tries others.
"""

from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.recipes import Layout, finetuning, on_slices, pretraining
from sam_audio_jax.separator.dit import DitConfig

DIT = DitConfig(depth=16, width=2048, heads=16, mlp=5504)

PRETRAINING = on_slices(
    pretraining(DIT),
    {
        "v5e-256": Layout(mesh=MeshConfig(data=16, fsdp=16), remat="dots"),
        "v5p-512": Layout(mesh=MeshConfig(data=8, fsdp=32), remat="none"),
        "v6e-256": Layout(mesh=MeshConfig(data=16, fsdp=16), remat="none"),
    },
)
# A budget of 120,000 frames is 160 clips of 30 s: fewer than the chips have shares for, unless
# two of them share an item's heads.
FINETUNING = on_slices(
    finetuning(DIT, token_budget=120_000),
    {
        "v5e-256": Layout(mesh=MeshConfig(data=8, fsdp=16, tensor=2), remat="dots"),
        "v5p-512": Layout(mesh=MeshConfig(data=4, fsdp=32, tensor=2), remat="none"),
        "v6e-256": Layout(mesh=MeshConfig(data=8, fsdp=16, tensor=2), remat="dots"),
    },
)

RECIPES = PRETRAINING | {f"finetune-{name}": made for name, made in FINETUNING.items()}
CONFIG = RECIPES["v5e-256"]
