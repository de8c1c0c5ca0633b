import importlib.util
import pathlib

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.data import shards

SMALL = CodecConfig(
    **{"sample_rate": 8000, "encoder_dim": 2, "encoder_rates": (4, 4, 4, 4), "latent_dim": 8},
    **{"decoder_dim": 16, "decoder_rates": (4, 4, 4, 4), "codebook_dim": 4},
    watermark_rates=(),
)
CONFIG = """
from sam_audio_jax.data.config import DataConfig, MixConfig, SourceConfig
from sam_audio_jax.train.config import TrainConfig
CONFIG = TrainConfig(
    data=DataConfig(
        source=SourceConfig(manifests=({manifest!r},)), mix=MixConfig(seconds=1.0)
    )
)
"""


@pytest.fixture
def prepare(monkeypatch):
    path = pathlib.Path(__file__).parents[2] / "launch" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load_codec", lambda name: Codec(SMALL, rngs=nnx.Rngs(0)))
    return module


def test_prepare_writes_a_cache_and_extends_it(world, tmp_path, prepare, capsys):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(manifest=world))
    out = tmp_path / "cache"
    arguments = [str(config), "--out", str(out), "--items", "5", "--batch", "4"]
    assert prepare.main(arguments) == 0
    cache = shards.Cache(out)
    assert len(cache) == 64
    record = cache[7]
    assert record is not None
    assert record.mixture.shape == (31, 4)
    assert len(record.target_active) == 31
    assert all(np.isfinite(record.mixture).ravel())
    assert prepare.main([*arguments, "--data.seed", "3"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"error: {out} holds a cache with another recipe")


TEACHER = """
import dataclasses
from sam_audio_jax.scorers.cnn14 import Cnn14Config
from sam_audio_jax.train.config import AlignmentConfig
SMALL = Cnn14Config(sample_rate=4000, window=128, hop=80, mels=16, low_hz=50.0, high_hz=2000.0,
                    widths=(2, 3, 4), classes=3)
CONFIG = dataclasses.replace(CONFIG, alignment=AlignmentConfig(
    weight=1.0, teacher_checkpoint="random", teacher=SMALL))
"""


def test_a_weighted_alignment_adds_what_its_teacher_hears(world, tmp_path, prepare, capsys):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(manifest=world) + TEACHER)
    out = tmp_path / "cache"
    assert prepare.main([str(config), "--out", str(out), "--items", "5", "--batch", "8"]) == 0
    cache = shards.Cache(out)
    assert cache.index["segment_s"] == pytest.approx(0.08)
    record = cache[7]
    assert record is not None
    assert record.target_features.shape == (12, 4)
    assert record.target_features.any()
    for number in range(len(cache)):
        other = cache[number]
        assert (other.residual_features is None) == (not other.residual_texts)
    unnamed = ["--alignment.teacher-checkpoint", "", "--data.cache", "x"]
    assert prepare.main([str(config), "--out", str(tmp_path / "b"), *unnamed]) == 2
    assert "error: alignment.teacher_checkpoint is empty" in capsys.readouterr().err


def test_prepare_says_what_is_wrong(tmp_path, prepare, capsys):
    for arguments in (
        ["gone.py", "--out", "x"],
        ["gone.py"],
        ["a.py", "--out", "x", "--items", "0"],
    ):
        assert prepare.main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")
