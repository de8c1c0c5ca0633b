"""ModernBERT against the reference's hidden states, layer by layer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.convert.names import Table
from sam_audio_jax.convert.pe_a_frame import modernbert_config, modernbert_rows
from sam_audio_jax.encoders.modernbert import ModernBert, ModernBertConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.norm import LayerNorm
from sam_audio_jax.nn.rngs import Rngs
from tests.tiny import filled

TOLERANCE = 2e-4
TINY = ModernBertConfig(vocab_size=31, width=16, depth=4, heads=2, mlp=12, window=4)


@pytest.fixture(scope="module")
def folder(fixtures_dir):
    return fixtures_dir / "pe_a_frame" / "modernbert"


@pytest.fixture(scope="module")
def stored(folder):
    return load_file(folder / "weights.safetensors")


def table(config) -> Table[ModernBert]:
    rows = modernbert_rows("", "", config)
    return Table(lambda: ModernBert(config, rngs=Rngs(0)), rows, config.depth, "ModernBERT")


@pytest.fixture(scope="module")
def bert(folder, stored) -> ModernBert:
    values = json.loads((folder / "config.json").read_text())
    config = modernbert_config(values, "text_model", values["num_hidden_layers"])
    return table(config).build({n: w for n, w in stored.items() if not n.startswith("final_norm.")})


@pytest.fixture(scope="module")
def batches(folder):
    io = load_file(folder / "io.safetensors")
    batches = sorted({name.split(".")[0] for name in io})
    assert batches
    return {
        b: {n[len(b) + 1 :]: w for n, w in io.items() if n.startswith(f"{b}.")} for b in batches
    }


def near(got, want, real):
    """Compares values at real positions; at padded ones ours must be finite."""
    assert np.isfinite(got).all()
    np.testing.assert_allclose(np.asarray(got)[real], want[real], atol=TOLERANCE, rtol=0)


@pytest.mark.golden
def test_every_hidden_state(bert, stored, batches):
    graph, blocks = nnx.split(bert.blocks)
    norm = LayerNorm(bert.config.width, eps=bert.config.eps, bias=False, rngs=Rngs(0))
    norm.scale[...] = jnp.asarray(stored["final_norm.weight"])

    @jax.jit
    def states(ids, mask):
        inputs = bert.attention_inputs(mask)
        by_name = {"embeddings": bert.embeddings(ids), "scanned": bert(ids, mask)}

        def body(x, scanned):
            weights, layer = scanned
            block = nnx.merge(graph, weights)
            attended, x = block.attend(x, layer, inputs), block(x, layer, inputs)
            return x, (attended, x)

        x, layers = jax.lax.scan(body, by_name["embeddings"], (nnx.as_pure(blocks), bert.layers()))
        for i, (attended, state) in enumerate(zip(*layers, strict=True)):
            by_name |= {f"layer{i}.attn": attended, f"layer{i}": state}
        return by_name | {"last_hidden_state": norm(x)}

    for io in batches.values():
        real = io["attention_mask"].astype(bool)
        got = states(io["input_ids"].astype(np.int32), real)
        near(got.pop("scanned"), io[f"layer{bert.config.depth - 1}"], real)
        assert set(got) == set(io) - {"input_ids", "attention_mask"}
        for name, state in got.items():
            near(state, io[name], real)


@pytest.mark.golden
def test_export_gives_back_every_tensor(bert, stored):
    back = table(bert.config).stored(bert)
    assert set(back) == {name for name in stored if not name.startswith("final_norm.")}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, stored[name], err_msg=name)


def random_bert(config=TINY) -> ModernBert:
    return filled(lambda: ModernBert(config, rngs=Rngs(0)))


def tokens(batch, length, seed=0):
    return np.random.default_rng(seed).integers(0, TINY.vocab_size, (batch, length), np.int32)


def test_padding_changes_nothing_and_is_finite():
    run = jax.jit(random_bert().__call__)
    ids = tokens(2, 24)
    mask = np.arange(24)[None] < np.array([[5], [24]])
    got = run(ids, mask)
    np.testing.assert_allclose(run(ids[:1, :5], mask[:1, :5])[0], got[0, :5], atol=1e-5)
    assert np.isfinite(got).all()  # some padded rows of local layers have no key at all


def test_local_layers_attend_to_their_window_alone():
    """A change at the first token spreads by half a window for each local layer."""
    config = ModernBertConfig(**{**vars(TINY), "depth": 3, "global_every": 3})
    bert = random_bert(config)
    graph, blocks = nnx.split(bert.blocks)
    mask = jnp.ones((1, 16), bool)

    @jax.jit
    def local(x):
        for i in (1, 2):
            weights, layer = jax.tree.map(lambda leaf, i=i: leaf[i], (blocks, bert.layers()))
            x = nnx.merge(graph, weights)(x, layer, bert.attention_inputs(mask))
        return x

    x = jax.random.normal(jax.random.key(0), (1, 16, config.width))
    moved = np.abs(local(x.at[:, 0].multiply(-1.0)) - local(x)).max(axis=(0, 2)) > 0
    reach = 2 * (config.window // 2)
    assert moved.tolist() == [i <= reach for i in range(16)]


def test_a_single_layer_works():
    bert = random_bert(ModernBertConfig(**{**vars(TINY), "depth": 1}))
    got = jax.jit(bert.__call__)(tokens(1, 3), np.ones((1, 3), bool))
    assert got.shape == (1, 3, TINY.width)


def test_bfloat16_stays_near_float32():
    ids, mask = tokens(2, 9), np.ones((2, 9), bool)
    wide = jax.jit(random_bert().__call__)(ids, mask)
    half = jax.jit(random_bert(ModernBertConfig(**{**vars(TINY), "dtype": "bfloat16"})).__call__)
    got = half(ids, mask)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), wide, atol=0.05 * np.abs(wide).max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 3}, r"text\.width=16 must be a multiple"), ({"depth": 0}, r"text\.depth=0")],
)
def test_sizes_that_do_not_fit_are_the_users_error(changes, message):
    with pytest.raises(UserError, match=message):
        ModernBertConfig(**{**vars(TINY), **changes})
