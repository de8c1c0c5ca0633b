"""Matrices in 16 bits or as int8: where they are kept, how near the stems stay, what is refused."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import SAMAudio
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import storage
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.stack import stacked
from sam_audio_jax.nn.storage import QuantizedLinear, quantized

RATE = 8_000
LIMITS = {"bfloat16": 0.05, "float16": 5e-3, "int8": 0.1}  # of |a - b| / |b| against float32


@pytest.mark.parametrize("dtype", LIMITS)
def test_matrices_are_kept_in_the_dtype_and_stems_stay_near(folder, model, noise_of, dtype):
    pytest.importorskip("qwix")
    narrow = SAMAudio.from_pretrained(folder, dtype=dtype)
    networks = narrow.pipeline.networks
    block = networks.separator.dit.blocks
    kept = block.mlp.up.int8_kernel if dtype == "int8" else block.mlp.up.kernel
    assert kept.dtype == dtype
    embedding = "bfloat16" if dtype == "int8" else dtype
    assert networks.text_encoder.embed.embedding.dtype == embedding
    assert networks.codec.in_proj.kernel.dtype == jnp.float16
    for variable in (block.mlp_norm.scale, block.modulation, networks.codec.in_proj.bias):
        assert variable.dtype == jnp.float32
    wave = noise_of(0.5)
    near, exact = (one.separate(wave, "dog", sample_rate=RATE) for one in (narrow, model))
    for name in ("target", "residual"):
        a, b = getattr(near, name), getattr(exact, name)
        assert 0 < np.linalg.norm(a - b) / np.linalg.norm(b) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_kernel_is_quantised_from_float32_whatever_its_file_has(dtype):
    pytest.importorskip("qwix")
    exact = 0.02 * np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    stored = exact.astype(jnp.dtype(dtype))
    layer = linear(64, 32, ("embed", "mlp"), dtype="float32", rngs=Rngs(0))
    small = quantized(layer, iter([stored]))
    near = np.asarray(small.int8_kernel[...]) * np.asarray(small.scale[...])
    assert np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.01


def test_a_kernel_that_int8_does_not_hold_is_refused():
    pytest.importorskip("qwix")
    layer = linear(4096, 2, ("embed", "mlp"), dtype="float32", rngs=Rngs(0))
    quantized(layer, iter([np.zeros((4096, 2), np.float32)]))
    outlier = np.ones((4096, 2), np.float32)
    outlier[0] = 1e4  # one value on its channel: every other one is rounded to zero
    quantized(layer, iter([outlier]))  # the outlier is nearly all of the matrix
    outlier[0] = 300
    with pytest.raises(UserError, match=r"\(4096, 2\) changes by 20.9% as int8, and 5% is allowed"):
        quantized(layer, iter([outlier]))
    outlier[0] = np.nan
    with pytest.raises(UserError, match="changes by nan% as int8"):
        quantized(layer, iter([outlier]))


def test_the_shipped_model_as_int8_separates_as_in_float32(noise_of):
    """Its file has float16, of which Qwix by itself gives zeros."""
    pytest.importorskip("qwix")
    small, exact = (SAMAudio.from_pretrained("tiny", dtype=dtype) for dtype in ("int8", "float32"))
    wave = noise_of(1.0)
    a, b = (one.separate(wave, "rain", sample_rate=RATE).target for one in (small, exact))
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(b) < LIMITS["int8"]


def test_each_layer_of_a_stack_is_quantised_by_itself():
    pytest.importorskip("qwix")

    def make(rngs):
        return linear(6, 4, ("embed", "mlp"), dtype="float32", bias=True, rngs=rngs)

    layer = stacked(make, 3, Rngs(0))
    small = quantized(layer)
    assert isinstance(small, QuantizedLinear)
    kernel, scale = np.asarray(layer.kernel[...]), np.asarray(small.scale[...])
    assert (small.int8_kernel.shape, scale.shape) == ((3, 6, 4), (3, 1, 4))
    error = np.abs(np.asarray(small.int8_kernel[...]) * scale - kernel)
    assert (error <= scale / 2 + 1e-7).all()
    assert small.int8_kernel.get_metadata()["out_sharding"] == ("layers", "embed", "mlp")


def test_all_parts_are_loaded_at_once_on_request(folder, model):
    loaded = SAMAudio.from_pretrained(folder, parts="all")
    assert "tower" in vars(loaded.pipeline.video_features)
    fresh = SAMAudio.from_pretrained(folder)
    assert "tower" not in vars(fresh.pipeline.video_features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int4"}, "dtype='int4' is unknown; allowed: float32, bfloat16, float16, int8"),
        ({"parts": "video"}, "parts='video' is unknown; allowed: text, all"),
    ],
)
def test_wrong_settings(folder, arguments, message):
    with pytest.raises(UserError, match=message):
        SAMAudio.from_pretrained(folder, **arguments)


class Holder(nnx.Module):
    """A network of one layer."""

    def __init__(self, layer):
        self.layer = layer


def test_without_qwix_and_out_of_range_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(UserError, match=r"dtype='int8' needs Qwix: pip install"):
        storage.check_storage("int8", on_mesh=False)
    layer = linear(2, 2, ("embed", "mlp"), dtype="float32", rngs=Rngs(0))
    layer.kernel[...] = jnp.full((2, 2), 1e6)
    with pytest.raises(UserError, match="too large for float16: use bfloat16"):
        storage.stored(Holder(layer), "float16")
