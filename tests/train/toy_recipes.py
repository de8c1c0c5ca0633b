"""The recipes of the paper at a toy size: only sizes, paths and step counts are replaced."""

import dataclasses

from sam_audio_jax.convert.model_files import SHIPPED
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.recipes import finetuning, pretraining
from sam_audio_jax.scorers.cnn14 import Cnn14Config
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.train.config import TrainConfig
from tests.train.tiny import CONFIG as TINY

TEACHER = Cnn14Config(
    sample_rate=4000,
    window=128,
    hop=80,
    mels=16,
    low_hz=50.0,
    high_hz=2000.0,
    widths=(2, 4),
    classes=3,
)


def toy(recipe: TrainConfig, **fields) -> TrainConfig:
    """The recipe with small networks; the text encoder is that of the shipped `tiny`."""
    separator = dataclasses.replace(
        recipe.separator, channels=4, text_width=256, video_width=4, anchor_width=4
    )
    data = recipe.data
    data = dataclasses.replace(
        data,
        mix=dataclasses.replace(data.mix, seconds=2.0, recipes=(("sfx", "sfx", 1.0),)),
        prompts=dataclasses.replace(
            data.prompts, tokenizer=str(SHIPPED / "tiny" / "t5"), text_tokens=8
        ),
        workers=0,
    )
    if data.batches.token_budget:
        batches = dataclasses.replace(
            data.batches, token_budget=400, buckets_s=(1.5,), shortest_s=1.25
        )
        data = dataclasses.replace(data, batches=batches)
    return dataclasses.replace(
        recipe,
        codec=TINY.codec,
        codec_checkpoint="random",
        text=T5Config(vocab_size=32_000, width=256, head_dim=1, heads=1, mlp=1, depth=0),
        text_checkpoint="tiny",
        separator=separator,
        data=data,
        optim=dataclasses.replace(recipe.optim, warmup_steps=2),
        sampler=SamplerConfig(method="euler", steps=1),
        steps=4,
        eval_every=2,
        log_every=2,
        **fields,
    )


DIT = TINY.separator.dit
PRETRAINING, FINETUNING = pretraining(DIT), finetuning(DIT, token_budget=96_000)
RECIPES = {
    "pretraining": toy(
        PRETRAINING,
        alignment=dataclasses.replace(
            PRETRAINING.alignment, hidden=8, teacher=TEACHER, teacher_checkpoint="random"
        ),
        batch=8,
    ),
    "finetuning": toy(FINETUNING),
}
CONFIG = RECIPES["pretraining"]
