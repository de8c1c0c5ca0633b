"""The span predictor against the reference's numbers, from every tensor of `io_*.safetensors`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.codec.codec import pad_to_hop
from sam_audio_jax.convert.pe_a_frame import load_span_predictor
from sam_audio_jax.encoders.modernbert import ModernBertConfig
from sam_audio_jax.encoders.peav import Peav, PeavConfig
from sam_audio_jax.encoders.span_predictor import SpanPredictor, SpanPredictorConfig
from sam_audio_jax.errors import UserError

HIDDEN = 2e-5  # of a tensor's largest value, or of 10 where that is larger
LOGITS = 1e-5
TEXT = "text_nth_hidden"
TINY = SpanPredictorConfig(
    audio=PeavConfig(depth=2, width=16, heads=2, mlp=24),
    text=ModernBertConfig(vocab_size=31, width=16, depth=2, heads=2, mlp=12, window=4),
    channels=3,
    embed=8,
    encoder_dim=2,
    encoder_rates=(2, 2),
)


@pytest.fixture(scope="module")
def folder(fixtures_dir):
    return fixtures_dir.resolve() / "pe_a_frame"


@pytest.fixture(scope="module")
def predictor(folder, tmp_path_factory) -> SpanPredictor:
    model = tmp_path_factory.mktemp("pe_a_frame")
    (model / "config.json").symlink_to(folder / "config.json")
    (model / "model.safetensors").symlink_to(folder / "weights.safetensors")
    return load_span_predictor(model, waves=True)[0]


@pytest.fixture(scope="module")
def cases(folder) -> dict[str, dict[str, np.ndarray]]:
    found = {path.stem.removeprefix("io_"): load_file(path) for path in sorted(folder.glob("io_*"))}
    assert found
    return found


def near(got, want, name=""):
    atol = LOGITS if name.endswith(("logits", "probs")) else HIDDEN * max(10, np.abs(want).max())
    np.testing.assert_allclose(got, want, atol=atol, rtol=0, err_msg=name)


def audio_states(predictor: SpanPredictor, latents, valid) -> dict:
    """Every hidden state of the audio tower, by the reference's names."""
    peav = predictor.audio
    graph, blocks = nnx.split(peav.blocks)
    found = {"data_proj": predictor.project(latents)}
    x, places = peav.with_class(found["data_proj"], valid)
    first = peav.patcher.first(x, places)
    second = peav.patcher.second(first, places)
    found |= {"resnet.block1": jnp.swapaxes(first, 1, 2)}
    found |= {"resnet.block2": jnp.swapaxes(second, 1, 2)}
    found["embeddings"] = x + second
    angle = peav.angles(x.shape[1])

    def body(x, weights):
        block = nnx.merge(graph, weights)
        attended = block.attention(block.attention_norm(x), mask=places, angle=angle)
        x = block(x, valid=places, angle=angle)
        return x, (attended, x)

    x, layers = jax.lax.scan(body, found["embeddings"], nnx.as_pure(blocks))
    for i, (attended, state) in enumerate(zip(*layers, strict=True)):
        found |= {f"layer{i}.self_attn": attended, f"layer{i}": state}
    found["norm"] = peav.norm(x)
    found["output"] = out = peav.out(found["norm"])
    found |= {"audio_last_hidden": out[:, 1:], "audio_pooled": out[:, 0]}
    found["audio_head"] = found["audio_embeds"] = predictor.audio_head(out[:, 1:])
    return found


def all_states(predictor: SpanPredictor, io: dict) -> dict:
    """Everything that a fixture holds besides its inputs; `io` with latents and frame mask."""
    ids, mask = io["input_ids"].astype(jnp.int32), io["attention_mask"].astype(bool)
    found = audio_states(predictor, io["input_features"], io.get("frame_mask"))
    found[TEXT] = predictor.text(ids, mask)
    found["text_pooled"] = found[TEXT][:, 0]
    found["text_head"] = found["text_embeds"] = predictor.text_head(found["text_pooled"])
    found["logits"] = predictor.logits(found["audio_embeds"], found["text_embeds"])
    found["probs"] = predictor(io["input_features"], ids, mask, valid=io.get("frame_mask"))
    return found


@pytest.mark.golden
def test_every_hidden_state(predictor, cases):
    hop = predictor.config.hop
    encode = jax.jit(lambda wave: predictor.latents(wave))
    run = jax.jit(lambda io: all_states(predictor, io))
    compared = set()
    for case, stored in cases.items():
        io = {name: stored[name] for name in ("input_ids", "attention_mask")}
        if "input_values" in stored:
            latents = encode(pad_to_hop(stored["input_values"][:, 0], hop))
            near(jnp.swapaxes(latents, 1, 2), stored["dac_vae_features"], f"{case} latents")
            io["input_features"] = latents
        else:
            io["input_features"] = stored["input_features"]
        if "padding_mask" in stored:
            step = hop if "input_values" in stored else 1
            io["frame_mask"] = stored["padding_mask"][:, ::step]
        found = run(io)
        inputs = ("input_features", "input_values", "dac_vae_features", "padding_mask")
        assert set(found) == set(stored) - {*inputs, "input_ids", "attention_mask"}
        real = stored["attention_mask"].astype(bool)
        near(found[TEXT][real], stored[TEXT][real], f"{case} {TEXT}")
        for name in set(found) - {TEXT}:
            near(found[name], stored[name], f"{case} {name}")
            compared.add(name)
    assert "logits" in compared


@pytest.mark.golden
def test_config_says_the_hop(folder, predictor):
    assert predictor.config.hop == json.loads((folder / "config.json").read_text())["hop_length"]


def inputs(lengths=(7, 4), tokens=5, seed=0):
    rng = np.random.default_rng(seed)
    frames, batch = max(lengths), len(lengths)
    valid = np.arange(frames)[None] < np.array(lengths)[:, None]
    latents = rng.standard_normal((batch, frames, TINY.channels)).astype(np.float32)
    ids = rng.integers(0, TINY.text.vocab_size, (batch, tokens), np.int32)
    return latents, ids, np.ones((batch, tokens), bool), valid


def jitted(config=TINY):
    predictor = nnx.jit(lambda: SpanPredictor(config, rngs=nnx.Rngs(1)))()
    return jax.jit(lambda x, ids, mask, valid: predictor(x, ids, mask, valid=valid))


@pytest.fixture(scope="module")
def tiny():
    return jitted()


def test_items_do_not_hear_each_other_nor_padded_tokens(tiny):
    latents, ids, mask, valid = inputs()
    mask[:, 4:] = False
    got = tiny(latents, ids, mask, valid)
    assert got.dtype == np.float32
    assert np.all((got >= 0) & (got <= 1))
    near(tiny(latents, np.where(mask, ids, 0), mask, valid), got)
    rows = tiny(latents[::-1], ids[::-1], mask[::-1], valid[::-1])
    near(rows[::-1], got)


def test_bfloat16_stays_near_float32(tiny):
    def of(part):
        return type(part)(**{**vars(part), "dtype": "bfloat16"})

    half = SpanPredictorConfig(**{**vars(TINY), "audio": of(TINY.audio), "text": of(TINY.text)})
    got, want = jitted(half)(*inputs()), tiny(*inputs())
    assert got.dtype == np.float32
    assert np.mean(np.abs(got - want)) < 0.05


def test_a_mask_hides_padded_frames_from_attention_and_norm():
    peav = nnx.jit(lambda: Peav(TINY.audio, rngs=nnx.Rngs(1)))()
    run = jax.jit(lambda x, valid: peav(x, valid))
    x = np.random.default_rng(0).standard_normal((1, 9, TINY.audio.width)).astype(np.float32)
    valid = np.arange(9)[None] < 6
    changed = np.where(valid[:, :, None], x, 100.0).astype(np.float32)
    frames, pooled = run(x, valid)
    again, same = run(changed, valid)
    near(same, pooled)
    near(again[:, :6], frames[:, :6])
    assert np.isfinite(again).all()


def test_waves_need_their_encoder():
    predictor = nnx.eval_shape(lambda: SpanPredictor(TINY, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match="waves=True"):
        predictor.latents(jnp.zeros((1, 8)))


def test_sizes_that_do_not_fit_are_the_users_error():
    with pytest.raises(UserError, match=r"peav\.width=10 must be a multiple"):
        PeavConfig(width=10, heads=3)
    with pytest.raises(UserError, match=r"spans\.embed=0"):
        SpanPredictorConfig(embed=0)
    with pytest.raises(UserError, match=r"spans\.encoder_rates"):
        SpanPredictorConfig(encoder_rates=(2, 0))
