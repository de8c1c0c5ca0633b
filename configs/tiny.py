"""Small separators on the codec of the shipped `tiny`: 5 M parameters, bytes as text.

The shipped model is `tiny@vectors`; its model card has each stage.

sam-audio prepare tiny --out runs/tiny_cache --items 3000
sam-audio train tiny --workdir runs/tiny --data.cache runs/tiny_cache

`tiny@vectors` is arranged for prompts by text: both prompts of a mixture, absent sounds, near
classes, several wordings, recordings drawn by their captions, filters, offsets. Its text encoder
are frozen word vectors, which know words that no caption has:

sam-audio convert --from wordllama --to runs/vectors
sam-audio prepare tiny@words --data.source.manifests A/manifest.jsonl B/manifest.jsonl --out CACHE
sam-audio train tiny@vectors --data.cache CACHE --workdir runs/vectors_run

`tiny@no-NAME` is the same without one of these, to see what it does; `tiny@plain` is without all of
them, and `tiny@words` trains a text encoder of its own instead of the vectors.

sam-audio train tiny@no-absent --data.cache CACHE --workdir runs/no_absent

`tiny@many-steps` learns all flow times alike, and `tiny@few-steps` goes on from it for few steps of
the solver (docs/training.md, "Few steps"); both share the cache of `words`:

sam-audio train tiny@many-steps --data.cache CACHE --workdir runs/many --init-from tiny
sam-audio train tiny@few-steps --data.cache CACHE --workdir runs/few --init-from runs/many

`tiny@refined` goes on with the loss of refined stems (docs/training.md, "Refined loss"), from a
cache with waves:

sam-audio prepare tiny@words --data.source.manifests ... --data.waves --out WAVES
sam-audio train tiny@refined --data.cache WAVES --workdir runs/refined --init-from tiny

Recipes that differ in prompts or flow times (`vectors`, `many-steps`, `few-steps`, `no-pairs`,
`no-absent`, `no-wordings`, `no-alternatives`) share the cache of `words`; each of the others has
its own.

Made for two CPU cores: mixtures are rendered and encoded once, latents have 12 channels, the text
encoder is trained from scratch together with the separator, batches are small, flow times lean
towards the noisy end, where the choice of the source is made, and the rate is ten times the
published one.
"""

import dataclasses
from typing import Any

from codec_tiny import CODEC

from sam_audio_jax.data.config import DataConfig, MixConfig, PromptConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.recipes import few_steps
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.flow import FlowConfig, SamplerConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.separator.refined_loss import RefinedConfig
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, TrainConfig

CONFIG = TrainConfig(
    codec=CODEC,
    text=T5Config(vocab_size=384, width=128, head_dim=32, heads=4, mlp=256, depth=2),
    separator=SeparatorConfig(
        dit=DitConfig(depth=6, width=192, heads=4, mlp=512, dropout=0.0, dtype="float32", unroll=6),
        channels=12,
        text_width=128,
        video_width=32,
        anchor_width=64,
    ),
    flow=FlowConfig(time="logit_normal", time_mean=-1.5, time_std=1.4),
    data=DataConfig(mix=MixConfig(seconds=8.0)),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=200, ema_decay=0.999, weight_decay=0.05),
    checkpoint=CheckpointConfig(every_steps=500, every_minutes=5.0, keep_last=2),
    train_text=True,
    sampler=SamplerConfig(method="euler", steps=1),
    batch=8,
    steps=40_000,
    eval_bench="embedded",
)

# Part of the data section -> fields, by the name of what they do.
WORDS: dict[str, dict[str, dict[str, Any]]] = {
    "captions": {"mix": {"caption_draws": 1.0, "caption_power": 0.5}},
    "near": {"mix": {"near_share": 0.3}},
    "single": {"mix": {"single_kinds": ("sfx",)}},
    "filters": {"mix": {"filter_share": 0.5, "filter_db": 9.0}},
    "offset": {"mix": {"offset_share": 0.1}},
    "speed": {"mix": {"speed_of": (("sfx", 0.165),)}},  # 0.84 to 1.17; others 0.9 to 1.1
    "pairs": {"prompts": {"pair_share": 0.7}},
    "absent": {"prompts": {"absent_share": 0.1}},
    "wordings": {"prompts": {"wording_share": 0.4}},
}
# What is on in every recipe of old, and what it is when it is switched off.
USUAL = {
    "alternatives": {"prompts": {"caption_share": 1.0}},
    "level": {"mix": {"level_db": (-30.0, -30.0)}},
}
# As in the last stage of the shipped model: nearly all flow times are near the one that is solved.
LATE = FlowConfig(time="logit_normal", time_mean=-4.0, time_std=1.2)


def _arranged(*parts: dict[str, dict[str, Any]]) -> TrainConfig:
    """The config with these fields of its data changed."""
    mix: dict[str, Any] = {"seconds": 8.0}
    prompts: dict[str, Any] = {"span_share": 0.35, "text_dropout": 0.1}
    for part in parts:
        mix |= part.get("mix", {})
        prompts |= part.get("prompts", {})
    data = DataConfig(mix=MixConfig(**mix), prompts=PromptConfig(**prompts))
    return dataclasses.replace(CONFIG, flow=LATE, data=data)


def _with_vectors(config: TrainConfig, folder: str = "runs/vectors") -> TrainConfig:
    """The config with frozen word vectors in place of a text encoder of its own."""
    text = T5Config(vocab_size=32_000, width=256, head_dim=1, heads=1, mlp=1, depth=0)
    prompts = dataclasses.replace(config.data.prompts, tokenizer=folder)
    return dataclasses.replace(
        config,
        text=text,
        separator=dataclasses.replace(config.separator, text_width=text.width),
        data=dataclasses.replace(config.data, prompts=prompts),
        text_checkpoint=folder,
        train_text=False,
    )


def in_bfloat16(config: TrainConfig) -> TrainConfig:
    """The config with products in 16 bits: faster on a CPU that multiplies in them."""
    dit = dataclasses.replace(config.separator.dit, dtype="bfloat16")
    return dataclasses.replace(config, separator=dataclasses.replace(config.separator, dit=dit))


VECTORS = _with_vectors(_arranged(*WORDS.values()))
REFINED = dataclasses.replace(
    VECTORS,
    data=dataclasses.replace(VECTORS.data, waves=True),
    refined=RefinedConfig(weight=0.07),
    optim=dataclasses.replace(VECTORS.optim, peak_lr=5e-4, ema_decay=0.998),
)
# Uniform flow times: a model that needs many steps, as the published ones do.
MANY = dataclasses.replace(
    VECTORS, flow=FlowConfig(), sampler=SamplerConfig(method="midpoint", steps=16)
)

RECIPES = {
    "many-steps": MANY,
    "few-steps": few_steps(MANY, steps=1_000),
    "words": _arranged(*WORDS.values()),
    "vectors": VECTORS,
    "refined": REFINED,
    "plain": _with_vectors(_arranged()),
    **{
        f"no-{name}": _with_vectors(
            _arranged(*(part for other, part in WORDS.items() if other != name))
        )
        for name in WORDS
    },
    "no-speed": _with_vectors(_arranged(*WORDS.values(), {"mix": {"speed_share": 0.0}})),
    **{
        f"no-{name}": _with_vectors(_arranged(*WORDS.values(), part))
        for name, part in USUAL.items()
    },
}
