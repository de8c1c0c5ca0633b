"""A tiny random model with a vision tower, as a folder that commands can load."""

import pathlib

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, vision_table
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from tests import tiny

VISION = VisionConfig(
    image_size=8, patch_size=4, width=16, depth=1, heads=2, mlp=24, output=4, pool_heads=2
)


def write_model(path: pathlib.Path) -> pathlib.Path:
    """Writes the folder: no gate and no last layer is zero, so that all prompts matter."""
    prompted = tiny.filled(lambda: PromptedSeparator(tiny.TEXT, tiny.SEPARATOR, rngs=Rngs(0)))
    codec = tiny.filled(lambda: Codec(tiny.CODEC, rngs=Rngs(0)))
    codec.decoder.out.scale[...] *= 0.1  # waves well below full scale
    tower = tiny.filled(lambda: VisionEncoder(VISION, rngs=Rngs(0)))
    stored = vision_table(VISION).stored(tower)
    extra = {
        "sampler": {"method": "euler", "steps": 2},
        "vision": to_dict(VISION),
        "rest": {SAM_AUDIO_PREFIX + name: tensor for name, tensor in stored.items()},
    }
    save_folder(path, codec, prompted, "byt5", extra)
    return path
