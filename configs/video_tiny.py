"""Prompts by video on the shipped `tiny`: a small vision tower, and the separator that reads it.

python -m tools.video_scenes --source DATA --count 400 --out runs/scenes
sam-audio convert --from wordllama --to runs/vectors
python -m tools.picture_tower --source DATA --words runs/vectors --out runs/picture_tower
sam-audio prepare video_tiny --data.source.manifests runs/scenes/manifest.jsonl --items 192 \\
    --out runs/video_cache
sam-audio train video_tiny --data.source.manifests runs/scenes/manifest.jsonl \\
    --data.cache runs/video_cache --workdir runs/video --init-from tiny

The recordings are objects of composed clips (docs/training.md, "Video at small scale"): each lasts
as long as a mixture and is seen in all of it, so that a mask says what to separate and not when.
All numbers are ours.
"""

import dataclasses

from tiny import VECTORS, in_bfloat16

from sam_audio_jax.data.config import MixConfig
from sam_audio_jax.train.config import OptimConfig

CONFIG = dataclasses.replace(
    in_bfloat16(VECTORS),
    vision_checkpoint="runs/picture_tower",
    data=dataclasses.replace(
        VECTORS.data,
        # The clips are laid out in time already: each is taken whole.
        mix=MixConfig(
            seconds=4.0,
            recipes=(("any", "any", 1.0),),
            snr_db=(-5.0, 5.0),
            level_db=(-30.0, -30.0),
            target_repeats=1.0,
            residual_repeats=1.0,
            second_share=0.0,
            caption_draws=1.0,
            caption_power=0.5,
            filter_share=0.5,
        ),
        # Three quarters of the examples have neither text nor spans: the mask alone says what.
        prompts=dataclasses.replace(
            VECTORS.data.prompts,
            text_dropout=0.8,
            drop_any_text=True,
            span_share=0.05,
            video_dropout=0.05,
            swap_share=0.5,
            pair_share=0.7,
            absent_share=0.0,
        ),
    ),
    optim=OptimConfig(peak_lr=7e-4, warmup_steps=100, ema_decay=0.998, weight_decay=0.05),
    batch=4,
    steps=3_000,
)
