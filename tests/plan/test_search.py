"""Meshes that a search considers, and the bytes of a layout's state."""

import dataclasses

import pytest

from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import chips
from sam_audio_jax.plan.search import candidates, meshes, parameters, state_bytes
from sam_audio_jax.recipes import pretraining
from sam_audio_jax.separator.dit import DitConfig


@pytest.fixture(scope="module")
def config():
    base = pretraining(DitConfig(depth=2, width=256, heads=2, mlp=704))
    return dataclasses.replace(base, text=dataclasses.replace(base.text, depth=1), batch=16)


def test_meshes_divide_batch_width_and_heads(config):
    ranked = list(meshes(config, 16))
    assert MeshConfig(data=1, fsdp=16) in ranked
    assert MeshConfig(data=2, fsdp=4, tensor=2) in ranked
    assert all(mesh.tensor <= 2 for mesh in ranked)  # two heads
    for mesh in ranked:
        assert mesh.data * mesh.fsdp * mesh.tensor == 16
        assert config.batch % (mesh.data * mesh.fsdp) == 0


def test_state_is_sharded_by_fsdp(config):
    whole = state_bytes(config, MeshConfig(data=16, fsdp=1), 16)
    cut = state_bytes(config, MeshConfig(data=1, fsdp=16), 16)
    assert whole / 16 < cut < whole / 10  # vectors and tables stay whole


def test_what_adapters_are_trained_beside_counts(config):
    """The base is in no checkpoint of such a training, but in the memory of its chips."""
    alignment = dataclasses.replace(config.alignment, weight=0.0)
    whole = dataclasses.replace(config, train_text=False, alignment=alignment)
    lora = dataclasses.replace(config.lora, rank=2)
    adapted = dataclasses.replace(whole, init_from="base", lora=lora)
    mesh = MeshConfig(data=1, fsdp=1)
    assert parameters(whole) < parameters(adapted) < 1.1 * parameters(whole)
    assert state_bytes(adapted, mesh, 1) > 4 * parameters(adapted)


def test_layouts_are_ranked_and_fit(config):
    """On four chips with one head: a step is traced for every `remat` and split of the heads."""
    dit = dataclasses.replace(config.separator.dit, heads=1)
    one_head = dataclasses.replace(
        config, separator=dataclasses.replace(config.separator, dit=dit), batch=4
    )
    ranked = candidates(one_head, chips.parse("v5e:2x2"))
    assert [one.seconds for one in ranked] == sorted(one.seconds for one in ranked)
    assert {one.mesh.fsdp for one in ranked} == {1, 2, 4}
    assert {one.remat for one in ranked} == {"none", "dots", "attention", "full"}
    same = {one.remat: one.seconds for one in ranked if one.mesh == ranked[0].mesh}
    assert same["none"] <= same["dots"] <= same["full"]
