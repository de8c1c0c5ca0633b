"""A tiny model whose text encoder is word vectors, an audio tower among them, and a latent cache.

The cache has three kinds of sound, each a tone with a caption; latents are projections of a frame's
samples, which need no codec.
"""

import pathlib

import numpy as np

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.audio_tower import StoredAudioTower, stored_audio_tower
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.data import pipeline, shards
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.mixture import Mixture
from sam_audio_jax.encoders.audio_tower import (
    AudioTextSpace,
    AudioTower,
    AudioTowerConfig,
    latents_probe,
    table_fingerprint,
    words_probe,
)
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.encoders.text_means import TextMeans
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from tests import tiny

VECTORS = T5Config(vocab_size=384, width=16, head_dim=1, heads=1, mlp=1, depth=0)
TOWER = AudioTowerConfig(
    channels=8, embedding=16, audio=PeavConfig(depth=1, width=16, heads=2, mlp=24)
)
CAPTIONS = ("dog barking", "rain falling", "bell ringing")
RATE, HOP, FRAMES = tiny.CODEC.sample_rate, tiny.CODEC.hop, 12


def prompted() -> PromptedSeparator:
    """Text encoder and separator, all weights different from zero."""
    return tiny.filled(lambda: PromptedSeparator(VECTORS, tiny.SEPARATOR, rngs=Rngs(0)))


def codec(seed: int = 0) -> Codec:
    network = tiny.filled(lambda: Codec(tiny.CODEC, rngs=Rngs(0)), seed)
    network.decoder.out.scale[...] *= 0.1  # waves well below full scale
    return network


def tower(seed: int = 0) -> AudioTower:
    network = tiny.filled(lambda: AudioTower(TOWER, rngs=Rngs(0)), seed)
    network.length[...] = np.full(1, 1.5, np.float32)
    return network


def means(model: PromptedSeparator | None = None) -> TextMeans:
    encoder = (model or prompted()).text_encoder
    return TextMeans(encoder, tokenizer_for("byt5", normalizes=True))


def space(of: Codec | None = None) -> AudioTextSpace:
    """That of the codec and the word vectors here."""
    return AudioTextSpace(
        sample_rate=RATE,
        hop=HOP,
        frames=FRAMES,
        noise_frames=FRAMES,
        latents=latents_probe(of or codec(), FRAMES),
        words=words_probe(means()),
        table=table_fingerprint(means()),
    )


def stored_tower(of: Codec | None = None) -> StoredAudioTower:
    return stored_audio_tower(tower(), space(of))


def write_model(path: pathlib.Path, stored: StoredAudioTower | None = None) -> pathlib.Path:
    """A model folder, with an audio tower or without one."""
    extra = {"sampler": {"method": "euler", "steps": 2}, "normalizes_text": True}
    if stored is not None:
        extra["audio_tower"] = stored
    save_folder(path, codec(), prompted(), "byt5", extra)
    return path


def tone(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A tone of a kind, about `FRAMES` frames."""
    time = np.arange(FRAMES * HOP) / RATE
    frequency = (300, 900, 2000)[kind] * rng.uniform(0.95, 1.05)
    return (0.2 * np.sin(2 * np.pi * (frequency * time + rng.uniform()))).astype(np.float32)


def mixture(number: int) -> Mixture:
    """A tone of one kind as target, of the next as residual."""
    rng = np.random.default_rng(number)
    kinds = number % 3, (number + 1) % 3
    target, residual = (tone(kind, rng) for kind in kinds)
    texts = [(CAPTIONS[kind],) for kind in kinds]
    claims = [frozenset(one) for one in texts]
    return Mixture(
        target + residual,
        target,
        residual,
        texts[0],
        texts[1],
        "sfx/sfx",
        target_claims=claims[0],
        residual_claims=claims[1],
    )


def encode(waves: np.ndarray) -> np.ndarray:
    """Magnitudes of a few bands of each frame, as latents of about 1."""
    frames = waves.reshape(len(waves), -1, HOP)
    spectrum = np.abs(np.fft.rfft(frames, axis=-1))[..., 1:]
    bands = np.array_split(spectrum, 8, axis=-1)
    return np.log(np.stack([band.mean(-1) for band in bands], axis=-1) + 1e-2).astype(np.float32)


def write_cache(path: pathlib.Path, items: int = 24, first: int = 0, encoding=encode) -> str:
    """A latent cache of so many mixtures, numbered from `first` on."""
    shards.write_cache(
        path,
        lambda number: mixture(first + number),
        encoding,
        items=items,
        sample_rate=RATE,
        hop=HOP,
        samples=FRAMES * HOP,
        codec="bands",
        recipe=pipeline.recipe(DataConfig()),
        per_shard=items,
    )
    return str(path)
