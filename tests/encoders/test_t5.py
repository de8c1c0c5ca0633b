"""T5 against the numbers of transformers' encoder (`t5_io.safetensors`)."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.flax import load_file
from safetensors.numpy import load_file as load_numpy

from sam_audio_jax.convert.t5 import t5_config, t5_table
from sam_audio_jax.encoders.t5 import T5Config, bucket
from sam_audio_jax.errors import UserError


@pytest.fixture(scope="module")
def io(fixtures_dir):
    return load_file(fixtures_dir / "model" / "t5_io.safetensors")


@pytest.fixture(scope="module")
def stored(fixtures_dir):
    return load_numpy(fixtures_dir / "model" / "t5" / "model.safetensors")


@pytest.fixture(scope="module")
def encoder(fixtures_dir, stored):
    config = t5_config(json.loads((fixtures_dir / "model" / "t5" / "config.json").read_text()))
    return t5_table(config).build(stored)


@pytest.mark.golden
def test_every_distance_has_the_bucket_of_the_reference(io, encoder):
    sizes = encoder.config
    got = bucket(np.asarray(io["bucket/relative"]), sizes.buckets, sizes.max_distance)
    np.testing.assert_array_equal(got, io["bucket/bucket"])


@pytest.mark.golden
def test_last_hidden_states(io, encoder):
    run = jax.jit(lambda ids, mask: encoder(ids, mask))
    cases = [name.removesuffix("/input_ids") for name in io if name.endswith("/input_ids")]
    assert cases
    for case in cases:
        got = run(io[f"{case}/input_ids"], io[f"{case}/attention_mask"].astype(bool))
        np.testing.assert_allclose(got, io[f"{case}/last_hidden_state"], atol=1e-4, err_msg=case)


@pytest.mark.golden
def test_hidden_states_layer_by_layer(io, encoder):
    ids, mask = io["texts/input_ids"], io["texts/attention_mask"].astype(bool)
    bias = encoder.position_bias(ids.shape[1])
    np.testing.assert_allclose(bias[None], io["texts/position_bias"], atol=1e-6)
    graph, layers = nnx.split(encoder.blocks)
    x = encoder.embed(ids)
    for layer in range(encoder.config.depth):
        np.testing.assert_allclose(x, io[f"texts/hidden_state_{layer}"], atol=1e-4)
        block = nnx.merge(graph, jax.tree.map(lambda leaf, i=layer: leaf[i], layers))
        x = jax.jit(lambda x, block=block: block(x, mask, bias))(x)
    last = io[f"texts/hidden_state_{encoder.config.depth}"]
    np.testing.assert_allclose(encoder.norm(x), last, atol=1e-4)


@pytest.mark.golden
def test_export_gives_back_every_tensor(stored, encoder):
    back = t5_table(encoder.config).stored(encoder)
    assert set(back) == set(stored)
    for name, tensor in stored.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_buckets_that_do_not_divide_are_the_users_error():
    with pytest.raises(UserError, match=r"text\.buckets=30"):
        T5Config(buckets=30)


def test_gated_t5_is_refused():
    with pytest.raises(UserError, match="gated-gelu"):
        t5_config({"feed_forward_proj": "gated-gelu"})
