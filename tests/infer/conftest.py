"""One tiny random model for the whole room: saved as a folder, so that doors can open it too."""

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import SAMAudio
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, vision_to_reference
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import PromptedSeparator, SeparatorConfig

CODEC = CodecConfig(
    sample_rate=8_000,
    encoder_dim=4,
    encoder_rates=(16, 20),
    latent_dim=8,
    decoder_dim=32,
    decoder_rates=(20, 16),
    codebook_dim=8,
    watermark_rates=(),
)
TEXT = T5Config(vocab_size=384, width=16, head_dim=8, heads=2, mlp=32, depth=1)
SEPARATOR = SeparatorConfig(
    dit=DitConfig(depth=1, width=32, heads=2, mlp=64, dtype="float32", max_positions=500),
    channels=8,
    text_width=16,
    video_width=4,
    anchor_width=8,
)
VISION = VisionConfig(
    image_size=8, patch_size=4, width=16, depth=1, heads=2, mlp=24, output=4, pool_heads=2
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint folder whose prompts all matter: gates and the last layer are born zero."""
    prompted = PromptedSeparator(TEXT, SEPARATOR, rngs=nnx.Rngs(0))
    out = prompted.separator.dit.out.kernel
    out[...] = 0.3 * jax.random.normal(jax.random.key(1), out[...].shape)
    prompted.separator.embed_anchors.gate[...] = np.ones(1)
    prompted.separator.align_video.gate[...] = np.ones(1)
    tower = VisionEncoder(VISION, rngs=nnx.Rngs(3))
    path = tmp_path_factory.mktemp("checkpoint") / "folder"
    extra = {
        "sampler": {"method": "euler", "steps": 2},
        "vision": to_dict(VISION),
        "rest": vision_to_reference(tower, SAM_AUDIO_PREFIX),
    }
    save_folder(path, Codec(CODEC, rngs=nnx.Rngs(2)), prompted, "byt5", extra)
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
