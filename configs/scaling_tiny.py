r"""A scaling study for two CPU cores: ten sizes over two decades, on the shipped codec.

sam-audio convert --from wordllama --to runs/vectors
sam-audio prepare tiny@words --data.source.manifests A/manifest.jsonl B/manifest.jsonl --out CACHE
sam-audio scaling scaling_tiny --plan --time 5 --base.data.cache CACHE
sam-audio scaling scaling_tiny --workdir runs/scaling --base.data.cache CACHE \
    --base.data.source.manifests A/manifest.jsonl B/manifest.jsonl

From 0.04 M to 5.5 M parameters, each measured after five amounts of data in one run of constant
rate with averaged weights, three seeds up to a width of 64. Flow times are uniform, as published
and as in the held-out loss. The text encoder is frozen, as published: word vectors
(`tiny@vectors`), so N is all that learns. The data is that of `tiny@words`; a cache of 6,016
mixtures (13.4 h) is read 5.3 times by the longest runs.

`--scores` then separates the mixtures with what the runs have kept. The codec does not keep the
wave, so stems are scored as masks on the mixture, by SI-SDR improvement and by the shipped judge.

`scaling_tiny@hour` is a smaller one, whose results are in docs/scaling_study.
`scaling_tiny@rates-mup` and `scaling_tiny@rates-standard` look for the best rate at three widths,
with three seeds; their results are in docs/scaling_rates.
"""

import dataclasses

from tiny import VECTORS, in_bfloat16

from sam_audio_jax.scaling.study import StudyConfig
from sam_audio_jax.separator.flow import FlowConfig
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, ParametrisationConfig

BASE = dataclasses.replace(
    VECTORS,
    flow=FlowConfig(),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=50, ema_decay=0.999, weight_decay=0.05),
    # `tiny` was tuned at a width of 192 with heads of 48.
    parametrisation=ParametrisationConfig(kind="mup", base_width=192, base_head_dim=48),
    checkpoint=CheckpointConfig(every_steps=500, every_minutes=5.0, keep_last=1, keep_best=0),
    eval_bench="embedded",
)
FAST = in_bfloat16(BASE)
CONFIG = StudyConfig(
    base=BASE,
    design="long",
    widths=(16, 24, 32, 48, 64, 96, 128, 160, 192, 256),
    steps=(250, 500, 1_000, 2_000, 4_000),
    seeds=3,
    seeds_up_to=64,
    # small, base and large at the hours that the paper trains on, were they of this codec and data.
    forecasts=((1536, 4.27e6), (2048, 4.27e6), (2816, 4.27e6)),
    forecast_budgets=(1e15, 1e16, 1e17),
    refine="wiener",
    judge="judge-tiny",
)


def _rates(kind: str) -> StudyConfig:
    """The sweep of the rate under one parametrisation."""
    base = dataclasses.replace(
        FAST,
        parametrisation=dataclasses.replace(BASE.parametrisation, kind=kind),
        eval_limit=24,
    )
    return StudyConfig(
        base=base,
        design="rates",
        widths=(16, 48, 128),
        steps=(160,),
        # The best rate of the standard parametrisation is higher in small networks.
        rates=tuple(5e-4 * 2.0**power for power in range(6 if kind == "mup" else 7)),
        seeds=3,
    )


# The study of docs/scaling_study: what five quarters of an hour of one core allow.
HOUR = dataclasses.replace(
    CONFIG,
    base=FAST,
    widths=(16, 24, 32, 48, 64, 96, 128, 192, 256),
    steps=(125, 250, 500, 1_000),
    seeds_up_to=32,
)

RECIPES = {"rates-mup": _rates("mup"), "rates-standard": _rates("standard"), "hour": HOUR}
