"""The span predictor against every tensor of the reference (`pe_a_frame/io_*.safetensors`)."""

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
from sam_audio_jax.nn.rngs import Rngs
from tests.peav_states import peav_states
from tests.tiny import filled

HIDDEN = 2e-5  # times the larger of 10 and a tensor's largest absolute value
LOGITS = 5e-6  # of logits and probabilities, times the larger of 2 and the largest of them
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
    stored = {p.stem.removeprefix("io_"): load_file(p) for p in sorted(folder.glob("io_*"))}
    assert stored
    return stored


def near(got, want, name=""):
    largest = np.abs(want).max()
    is_score = name.endswith(("logits", "probs"))
    atol = LOGITS * max(2, largest) if is_score else HIDDEN * max(10, largest)
    np.testing.assert_allclose(got, want, atol=atol, rtol=0, err_msg=name)


def audio_states(predictor: SpanPredictor, latents, valid) -> dict:
    """Returns every hidden state of the audio tower by its name in the reference."""
    projected = predictor.project(latents)
    states = peav_states(predictor.audio, projected, valid)
    states["data_proj"] = projected
    out = states["output"]
    states |= {"audio_last_hidden": out[:, 1:], "audio_pooled": out[:, 0]}
    states["audio_head"] = states["audio_embeds"] = predictor.audio_head(out[:, 1:])
    return states


def all_states(predictor: SpanPredictor, io: dict) -> dict:
    """Returns what a fixture holds besides its inputs; `io` has latents and a frame mask."""
    ids, mask = io["input_ids"].astype(jnp.int32), io["attention_mask"].astype(bool)
    states = audio_states(predictor, io["input_features"], io.get("frame_mask"))
    states[TEXT] = predictor.text(ids, mask)
    states["text_pooled"] = states[TEXT][:, 0]
    states["text_head"] = states["text_embeds"] = predictor.text_head(states["text_pooled"])
    states["logits"] = predictor.logits(states["audio_embeds"], states["text_embeds"])
    states["probs"] = predictor(io["input_features"], ids, mask, valid=io.get("frame_mask"))
    return states


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
        states = run(io)
        inputs = ("input_features", "input_values", "dac_vae_features", "padding_mask")
        assert set(states) == set(stored) - {*inputs, "input_ids", "attention_mask"}
        real = stored["attention_mask"].astype(bool)
        near(states[TEXT][real], stored[TEXT][real], f"{case} {TEXT}")
        for name in set(states) - {TEXT}:
            near(states[name], stored[name], f"{case} {name}")
            compared.add(name)
    assert "logits" in compared


@pytest.mark.golden
def test_the_hop_is_that_of_the_config(folder, predictor):
    assert predictor.config.hop == json.loads((folder / "config.json").read_text())["hop_length"]


def inputs(lengths=(7, 4), tokens=5, seed=0):
    rng = np.random.default_rng(seed)
    frames, batch = max(lengths), len(lengths)
    valid = np.arange(frames)[None] < np.array(lengths)[:, None]
    latents = rng.standard_normal((batch, frames, TINY.channels)).astype(np.float32)
    ids = rng.integers(0, TINY.text.vocab_size, (batch, tokens), np.int32)
    return latents, ids, np.ones((batch, tokens), bool), valid


def jitted(config=TINY):
    predictor = filled(lambda: SpanPredictor(config, rngs=Rngs(0)))
    return jax.jit(lambda x, ids, mask, valid: predictor(x, ids, mask, valid=valid))


@pytest.fixture(scope="module")
def tiny():
    return jitted()


def test_items_and_padded_tokens_do_not_influence_each_other(tiny):
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


def test_padded_frames_do_not_influence_attention_and_norm():
    peav = filled(lambda: Peav(TINY.audio, rngs=Rngs(0)))
    run = jax.jit(lambda x, valid: peav(x, valid))
    x = np.random.default_rng(0).standard_normal((1, 9, TINY.audio.width)).astype(np.float32)
    valid = np.arange(9)[None] < 6
    changed = np.where(valid[:, :, None], x, 100.0).astype(np.float32)
    frames, pooled = run(x, valid)
    again, same = run(changed, valid)
    near(same, pooled)
    near(again[:, :6], frames[:, :6])
    assert np.isfinite(again).all()


def test_waves_need_the_wave_encoder():
    predictor = nnx.eval_shape(lambda: SpanPredictor(TINY, rngs=Rngs(0)))
    with pytest.raises(UserError, match="waves=True"):
        predictor.latents(jnp.zeros((1, 8)))


def test_sizes_that_do_not_fit_are_the_users_error():
    with pytest.raises(UserError, match=r"peav\.width=10 must be a multiple"):
        PeavConfig(width=10, heads=3)
    with pytest.raises(UserError, match=r"spans\.embed=0"):
        SpanPredictorConfig(embed=0)
    with pytest.raises(UserError, match=r"spans\.encoder_rates"):
        SpanPredictorConfig(encoder_rates=(2, 0))
