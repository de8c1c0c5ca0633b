"""The smallest training on the shipped codec, for the plumbing of the closed loop."""

import dataclasses

from sam_audio_jax import config
from sam_audio_jax.data.config import MixConfig, PromptConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import SeparatorConfig

_TINY = config.from_cli(["tiny"])
CONFIG = dataclasses.replace(
    _TINY,
    text=T5Config(vocab_size=384, width=8, head_dim=4, heads=2, mlp=8, depth=1),
    separator=SeparatorConfig(
        dit=DitConfig(depth=1, width=16, heads=2, mlp=16, frequency_width=8, dtype="float32"),
        channels=12,
        text_width=8,
        video_width=4,
        anchor_width=4,
    ),
    data=dataclasses.replace(
        _TINY.data,
        mix=MixConfig(seconds=2.0, recipes=(("sfx", "sfx", 1.0),)),
        prompts=PromptConfig(text_tokens=8),
    ),
    batch=4,
    log_every=2,
)
