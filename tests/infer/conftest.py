"""One tiny random model for all tests here, saved as a folder that commands can load too."""

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import SAMAudio
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, vision_table
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.separator.model import PromptedSeparator
from tests import tiny

VISION = VisionConfig(
    image_size=8, patch_size=4, width=16, depth=1, heads=2, mlp=24, output=4, pool_heads=2
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint folder whose prompts all matter: no gate and no last layer is zero."""
    prompted = tiny.filled(lambda: PromptedSeparator(tiny.TEXT, tiny.SEPARATOR, rngs=nnx.Rngs(0)))
    codec = tiny.filled(lambda: Codec(tiny.CODEC, rngs=nnx.Rngs(0)))
    codec.decoder.out.scale[...] *= 0.1  # waves well below full scale
    tower = tiny.filled(lambda: VisionEncoder(VISION, rngs=nnx.Rngs(0)))
    stored = vision_table(VISION).stored(tower)
    path = tmp_path_factory.mktemp("checkpoint") / "folder"
    extra = {
        "sampler": {"method": "euler", "steps": 2},
        "vision": to_dict(VISION),
        "rest": {SAM_AUDIO_PREFIX + name: tensor for name, tensor in stored.items()},
    }
    save_folder(path, codec, prompted, "byt5", extra)
    return path


@pytest.fixture(scope="session")
def model(folder):
    return SAMAudio.from_pretrained(folder)


@pytest.fixture
def noise_of():
    """`seconds -> [samples]` at 8 kHz, on the grid of 16-bit files."""

    def make(seconds: float, seed: int = 0, channels: int | None = None) -> np.ndarray:
        size = round(seconds * 8_000)
        shape = (size,) if channels is None else (channels, size)
        wave = 0.1 * np.random.default_rng(seed).standard_normal(shape)
        return (np.round(wave * 2**15) / 2**15).astype(np.float32)

    return make
