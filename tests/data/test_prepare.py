import numpy as np
import pytest

from sam_audio_jax.cli import prepare
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.data import shards
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.train import frozen
from tests import tiny

CONFIG = """
from flax import nnx
from sam_audio_jax.data.config import DataConfig, MixConfig, SourceConfig
from sam_audio_jax.scorers.cnn14 import Cnn14Config
from sam_audio_jax.train.config import AlignmentConfig, TrainConfig
CONFIG = TrainConfig(
    data=DataConfig(source=SourceConfig(manifests=({manifest!r},)), mix=MixConfig(seconds=1.0)),
    alignment=AlignmentConfig(
        weight={weight},
        teacher_checkpoint="random",
        teacher=Cnn14Config(
            sample_rate=4000, window=128, hop=80, mels=16, low_hz=50.0, high_hz=2000.0,
            widths=(2, 4), classes=3,
        ),
    ),
)
"""


@pytest.fixture
def config(world, tmp_path, monkeypatch):
    """`config(weight)`: path of a config with the tiny codec and a tiny teacher of this weight."""

    def codec(name: str) -> Codec:
        return tiny.filled(lambda: Codec(tiny.CODEC, rngs=Rngs(0)))

    monkeypatch.setattr(frozen, "load_codec", codec)

    def write(weight: float) -> str:
        path = tmp_path / "config.py"
        path.write_text(CONFIG.format(manifest=world, weight=weight))
        return str(path)

    return write


def test_prepare_writes_a_cache_with_the_features_of_a_weighted_teacher(config, tmp_path, capsys):
    out = tmp_path / "cache"
    arguments = [config(1.0), "--out", str(out), "--items", "5", "--batch", "4"]
    assert prepare.main(arguments) == 0
    cache = shards.Cache(out)
    assert len(cache) == 64
    assert cache.index["segment_s"] == pytest.approx(0.04)
    record = cache[7]
    assert record.mixture.shape == (25, 8)
    assert len(record.target_active) == 25
    assert all(np.isfinite(record.mixture).ravel())
    assert record.target_features.shape == (25, 4)
    assert record.target_features.any()
    for number in range(len(cache)):
        other = cache[number]
        assert (other.residual_features is None) == (not other.residual_texts)
    assert prepare.main([*arguments, "--data.seed", "3"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {out} holds a cache with another recipe.seed: 0, not 3")


def test_prepare_says_what_is_wrong(config, tmp_path, capsys):
    unnamed = ["--alignment.teacher-checkpoint", "", "--data.cache", "x"]
    assert prepare.main([config(1.0), "--out", str(tmp_path / "b"), *unnamed]) == 2
    assert "error: alignment.teacher_checkpoint is empty" in capsys.readouterr().err
    for arguments in (
        ["gone.py", "--out", "x"],
        ["gone.py"],
        ["a.py", "--out", "x", "--items", "0"],
    ):
        assert prepare.main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")
