"""Every codec fixture: stages, moments, KL, watermark, waves."""

import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.codec.codec import (
    pad_to_hop,
)
from sam_audio_jax.convert.codec import (
    codec_config,
    codec_table,
)

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(os.environ.get("SAM_AUDIO_FIXTURES") or HERE.parent / "golden") / "codec"
CASES = sorted(p.name.removesuffix(".weights.safetensors") for p in FOLDER.glob("*.weights.*"))
PREFIX = "audio_codec."
pytestmark = pytest.mark.golden


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """(settings, codec, tensors, stored state) of one fixture; tensors channels last."""
    settings = json.loads((FOLDER / f"{request.param}.json").read_text())
    stored = load_file(FOLDER / f"{request.param}.weights.safetensors")
    state = {name.removeprefix(PREFIX): value for name, value in stored.items()}
    codec = codec_table(codec_config(settings["codec"], state)).build(state)
    tensors = load_file(FOLDER / f"{request.param}.tensors.safetensors")
    return settings, codec, {k: channels_last(v) for k, v in tensors.items()}, state


def channels_last(value):
    return value.swapaxes(1, 2) if value.ndim == 3 else value


def agree(got, want):
    """Within 1e-4 of the largest value, and of one where that is larger."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * max(1.0, np.abs(want).max()))


@nnx.jit
def decode(codec, latents, message):
    """The clean waves and the marked ones."""
    return codec.decode(latents), codec.decode(latents, watermark=message.astype(jnp.int32))


def stages(layers, x):
    """The output of each layer applied to that of the one before, all in one compilation."""

    @nnx.jit
    def run(layers, x):
        outputs = []
        for layer in layers:
            x = layer(x)
            outputs.append(x)
        return outputs

    return run(nnx.List(layers), jnp.asarray(x))


def inputs(settings, tensors):
    return [(f"in{i}", tensors[f"in{i}.wave"]) for i in range(len(settings["inputs"]))]


def test_settings_are_read_from_the_tensors(case):
    settings, codec, _, _ = case
    assert codec.config.hop == settings["hop"]
    assert codec.config.watermark_rates == tuple(settings["watermark"]["wm_rates"])
    assert codec.config.watermark_code == settings["watermark"]["d_wm_out"]
    assert codec.config.watermark_bits == settings["watermark"]["nbits"]
    assert codec.config.watermark_lstm_depth == settings["watermark"]["lstm_layers"]
    assert codec.watermark.strength == settings["watermark"]["alpha"]


def test_encoder_stages(case):
    _, codec, tensors, _ = case
    encoder = codec.encoder
    layers = [encoder.stem, *encoder.blocks, encoder.snake, encoder.out]
    for i, stage in enumerate(stages(layers, tensors["in0.wave_padded"])):
        agree(stage, tensors[f"in0.encoder_stage_{i}"])


def test_padding_moments_and_latents(case):
    settings, codec, tensors, _ = case
    moments = nnx.jit(lambda codec, wave: (*codec.moments(wave), codec.encode(wave)))
    for name, wave in inputs(settings, tensors):
        padded = pad_to_hop(wave[..., 0], codec.config.hop)
        np.testing.assert_array_equal(padded, tensors[f"{name}.wave_padded"][..., 0])
        mean, deviation, latents = moments(codec, jnp.asarray(padded))
        agree(mean, tensors[f"{name}.mean"])
        agree(latents, tensors[f"{name}.mean"])
        agree(mean + deviation * tensors[f"{name}.eps"], tensors[f"{name}.sample"])


def test_decoder_stages_and_waves(case):
    _, codec, tensors, _ = case
    layers = [codec.out_proj, codec.decoder.stem, *codec.decoder.blocks]
    embedded, *later = stages(layers, tensors["dec.latent"])
    agree(embedded, tensors["dec.emb"])
    for i, stage in enumerate(later):
        agree(stage, tensors[f"dec.decoder_stage_{i}"])
    clean, marked = decode(codec, tensors["dec.latent"], tensors["dec.message"])
    agree(clean, tensors["dec.wave_clean"][..., 0])
    agree(marked, tensors["dec.wave_marked"][..., 0])


def test_watermark_signal_and_code(case):
    _, codec, tensors, _ = case
    wave, message = jnp.asarray(tensors["dec.wave_clean"]), jnp.asarray(tensors["dec.message"])
    run = nnx.jit(lambda mark, wave, bits: (mark.encode(wave), mark.embed(bits), mark(wave, bits)))
    code, embedded, signal = run(codec.watermark, wave, message.astype(jnp.int32))
    agree(code, tensors["dec.wm_code"])
    agree(code + embedded, tensors["dec.wm_code_msg"])
    agree(signal, tensors["dec.wm_signal"])


def test_round_trips(case):
    settings, codec, tensors, _ = case
    for name, _ in inputs(settings, tensors):
        message = tensors[f"{name}.roundtrip_message"]
        clean, marked = decode(codec, tensors[f"{name}.mean"], message)
        agree(clean, tensors[f"{name}.roundtrip_wave_clean"][..., 0])
        agree(marked, tensors[f"{name}.roundtrip_wave_marked"][..., 0])


def test_export_gives_the_same_tensors_back(case):
    _, codec, _, state = case
    exported = codec_table(codec.config).stored(codec)
    assert set(exported) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(exported[name], value, err_msg=name)
