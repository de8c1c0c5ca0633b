"""The full-size codec, 48 kHz and 25 Hz x 128 (arXiv 2512.18099; docs/codec.md, "Training").

sam-audio train-codec codec@v5e-8 --workdir runs/codec --data.source.manifests MANIFEST.jsonl
sam-audio train small@v5e-256 --workdir runs/small --codec-checkpoint runs/codec

Sizes, losses, discriminators, batch and rates are the published ones, which are the defaults of
their classes. The codec is replicated on every device, so a slice shares the batch alone: the
published 72 excerpts are 9 for each of 8 chips.
"""

import dataclasses

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.data.excerpts import ExcerptConfig
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.train.config import CheckpointConfig, CodecTrainConfig, GanOptimConfig

CONFIG = CodecTrainConfig(
    codec=CodecConfig(),
    data=ExcerptConfig(workers=8),
    # The average of weights is ours, as is how often it is measured on held-out excerpts.
    optim=GanOptimConfig(ema_decay=0.999),
    checkpoint=CheckpointConfig(every_steps=5_000, every_minutes=10.0, keep_last=2),
    batch=72,
    steps=400_000,
    eval_every=5_000,
)
# 8 chips each; v5p counts two cores a chip.
RECIPES = {
    name: dataclasses.replace(CONFIG, mesh=MeshConfig(data=8, fsdp=1))
    for name in ("v5e-8", "v5p-16", "v6e-8")
}
