"""Names, shapes and files of LAION's CLAP, in both published layouts, at tiny and at full size."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.convert import tensors
from sam_audio_jax.convert.clap import (
    FILTERS,
    LAION,
    TRANSFORMERS,
    clap_from_reference,
    clap_rows,
    clap_table,
    layout_of,
    load_clap,
    used,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.clap import Clap, ClapConfig
from tests.tiny import CLAP

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(0)
    shapes = clap_table(CLAP).shapes()
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def listed():
    content = json.loads((INVENTORIES / "checkpoint_params_clap.json").read_text())
    assert len(content["tensors"]) == content["_entries"]
    return content["tensors"]


def empty(shapes):
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def test_names_and_shapes_of_the_published_file():
    whole = empty({name: entry["shape"] for name, entry in listed().items()})
    table = clap_table(ClapConfig())
    assert table.misfits(used(whole, LAION)) == []
    size = sum(np.prod(shape, dtype=int) for shape in table.shapes().values())
    assert round(size / 1e6, 1) == 153.5
    # What is left out is what transformers has no use for either, and counters and loss scales.
    for name in set(whole) - set(used(whole, LAION)):
        kept = listed()[name]["transformers_name"]
        assert kept is None or any(re.fullmatch(unused, kept) for unused in TRANSFORMERS.unused)


def test_names_of_transformers():
    names = []
    for entry in listed().values():
        theirs = entry["transformers_name"]
        names += [theirs] if isinstance(theirs, str) else theirs or []
    whole = empty({name: () for name in names})
    assert layout_of(whole) is TRANSFORMERS
    assert set(used(whole, TRANSFORMERS)) == set(clap_table(ClapConfig(), TRANSFORMERS).shapes())


@pytest.mark.parametrize("layout", [LAION, TRANSFORMERS])
def test_every_row_names_a_parameter_and_none_is_left_out(layout):
    model = nnx.eval_shape(lambda: Clap(CLAP, rngs=Rngs(0)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert sorted(row.ours for row in clap_rows(CLAP, layout)) == sorted(paths)


def test_there_and_back_changes_no_bit(state):
    network = clap_from_reference(state, CLAP)
    for name, tensor in clap_table(CLAP).stored(network).items():
        np.testing.assert_array_equal(tensor, state[name], err_msg=name)
    again = clap_table(CLAP, TRANSFORMERS).stored(network)
    qkv = "audio_branch.layers.1.blocks.2.attn.qkv.weight"
    stem = "audio_model.audio_encoder.layers.1.blocks.2.attention.self"
    thirds = [np.asarray(again[f"{stem}.{part}.weight"]) for part in ("query", "key", "value")]
    np.testing.assert_array_equal(np.concatenate(thirds), state[qkv])


@pytest.mark.parametrize("prefix", ["text_ranker.model.", "text_ranker.module.", ""])
def test_a_network_inside_of_another_state(state, prefix):
    inside = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    network = clap_from_reference(inside, CLAP, prefix=prefix.removesuffix("module."))
    np.testing.assert_array_equal(
        network.text.pool.bias[...], state["text_branch.pooler.dense.bias"]
    )
    halves = [f"module.{name}" if i % 2 else name for i, name in enumerate(state)]
    clap_from_reference(dict(zip(halves, state.values(), strict=True)), CLAP)
    if prefix:
        others = inside | {"codec.bias": np.zeros(1, np.float32)}
        clap_from_reference(others, CLAP, prefix=prefix)
        with pytest.raises(UserError, match=r"missing audio_branch\.bn0\.weight"):
            clap_from_reference(others, CLAP, prefix="visual_ranker.")


def test_no_name_is_lost_where_others_are_wrapped(state):
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    with pytest.raises(UserError, match=r"unexpected surprise\.weight"):
        clap_from_reference(wrapped | {"surprise.weight": np.zeros(1, np.float32)}, CLAP)
    with pytest.raises(UserError, match=r"has both (.*) and module\.\1"):
        clap_from_reference(wrapped | state, CLAP)


def test_a_checkpoint_that_does_not_fit_is_the_users_error(state):
    bank = mel_filters(CLAP.sample_rate, CLAP.window, CLAP.audio.mels, CLAP.low_hz, CLAP.high_hz)
    clap_from_reference(state | {FILTERS: bank}, CLAP)
    with pytest.raises(UserError, match="than 8 bands of 20 to 400 Hz at 800 Hz"):
        clap_from_reference(state | {FILTERS: 1.01 * bank}, CLAP)
    fusion = {"audio_branch.patch_embed.mel_conv2d.bias": np.zeros(4, np.float32)}
    with pytest.raises(UserError, match=r"unexpected audio_branch\.patch_embed\.mel_conv2d\.bias"):
        clap_from_reference(state | fusion, CLAP)
    shorter = {name: tensor for name, tensor in state.items() if name != "text_projection.0.bias"}
    with pytest.raises(UserError, match=r"missing text_projection\.0\.bias \[5\]"):
        clap_from_reference(shorter, CLAP)


def test_sizes_that_cannot_be():
    tower = CLAP.audio
    for changes, message in (
        ({"heads": (2,)}, "one number for each stage"),
        ({"mels": 7}, r"htsat\.image=16 must be a multiple of htsat\.mels=7"),
        ({"window": 8}, r"htsat\.image=16 must be a multiple of 32: windows of 8 patches"),
        ({"heads": (2, 3)}, "a stage of width 8 cannot have 3 heads"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(tower, **changes)
    with pytest.raises(UserError, match="more frames than the 32"):
        dataclasses.replace(CLAP, samples=256)
    with pytest.raises(UserError, match=r"clap\.tokens=11 must be at most 10"):
        dataclasses.replace(CLAP, tokens=11)
    with pytest.raises(UserError, match=r"roberta\.width=5 must be a multiple of"):
        dataclasses.replace(CLAP.text, width=5)
    with pytest.raises(UserError, match=r"roberta\.padding_id=11 must be below"):
        dataclasses.replace(CLAP.text, padding_id=11)


def test_files(state, tmp_path, monkeypatch):
    save_file(state, tmp_path / "clap.safetensors")
    network = load_clap(str(tmp_path / "clap.safetensors"), CLAP)
    kernel = network.audio_projection.up.kernel[...]
    np.testing.assert_array_equal(kernel, state["audio_projection.0.weight"].T)
    with pytest.raises(UserError, match="no CLAP checkpoint at gone"):
        load_clap("gone.pt")
    pickled = tmp_path / "clap.pt"
    pickled.write_bytes(b"read by torch alone")
    monkeypatch.setattr(tensors, "_load_torch", lambda path, mapped: {"epoch": 3})
    with pytest.raises(UserError, match="holds no tensors under 'state_dict'"):
        load_clap(str(pickled), CLAP)


def test_a_pickle_as_laion_writes_it_is_read(state, tmp_path):
    """The published file was saved in training: beside the tensors it has numbers of NumPy."""
    torch = pytest.importorskip("torch")
    inside = {f"module.{name}": torch.from_numpy(tensor) for name, tensor in state.items()}
    content = {"epoch": 3, "loss": np.float64(0.5), "state_dict": inside}
    torch.save(content, tmp_path / "clap.pt")
    network = load_clap(str(tmp_path / "clap.pt"), CLAP)
    kernel = network.audio_projection.up.kernel[...]
    np.testing.assert_array_equal(kernel, state["audio_projection.0.weight"].T)
