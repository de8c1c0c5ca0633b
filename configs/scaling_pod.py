r"""A scaling study for a pod: seven sizes over two decades, on the released codec's latents.

sam-audio prepare small --codec-checkpoint DIR --alignment.teacher-checkpoint CNN14.pth \
    --data.source.manifests A/manifest.jsonl --out caches/pretraining
sam-audio scaling scaling_pod@rates --plan --topology v5e-256 --mfu 0.1 --price 1.2
sam-audio scaling scaling_pod --plan --topology v5e-256 --mfu 0.1 --price 1.2
sam-audio scaling scaling_pod --workdir /mnt/study --jobs queued_resources

The pre-training of `small` in seven widths, 3.6 M to 496 M parameters (the largest is `small`), of
constant rate with averaged weights, each measured after five amounts of data, 21,000 to 341,000
hours of mixtures; it forecasts `base` and `large`. Nothing of it was trained here: docs/scaling.md,
"A study on a pod", has its plan and what each part costs. `scaling_pod@rates` looks for the rate.
"""

import dataclasses

import small

from sam_audio_jax.scaling.study import StudyConfig
from sam_audio_jax.train.config import CheckpointConfig, ParametrisationConfig

HOURS = 4.27e6  # of mixtures in a published pre-training, 500,000 steps
PUBLISHED = small.RECIPES["v5e-256"]
BASE = dataclasses.replace(
    PUBLISHED,
    # Of the paper's rate, 1e-4 at a width of 1536, muP makes 4e-4 at the base width.
    optim=dataclasses.replace(PUBLISHED.optim, peak_lr=4e-4, warmup_steps=1_000),
    parametrisation=ParametrisationConfig(
        kind="mup_depth", base_width=384, base_head_dim=128, base_depth=4
    ),
    checkpoint=CheckpointConfig(keep_last=1, keep_best=0, keep_every=2_500),  # for --scores
)
CONFIG = StudyConfig(
    base=BASE,
    design="long",
    widths=(192, 256, 384, 512, 768, 1024, 1536),
    steps=(2_500, 5_000, 10_000, 20_000, 40_000),
    seeds=3,
    seeds_up_to=384,
    forecasts=((1536, HOURS), (2048, HOURS), (2816, HOURS)),
    forecast_budgets=(1e21, 1e22, 1e23),
    judge="sam-audio-judge",
)
# The rate at the base width, and at one twice as wide and half as deep again: whether it holds.
RATES = dataclasses.replace(
    CONFIG,
    design="rates",
    widths=(384, 768),
    steps=(2_500,),
    rates=tuple(1e-4 * 2.0**power for power in range(6)),
    seeds_up_to=0,
    forecasts=(),
    forecast_budgets=(),
    judge="",
)

RECIPES = {"rates": RATES}
