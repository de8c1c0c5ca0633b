"""Every codec fixture: stages, moments, KL, watermark, index arithmetic, waves."""

import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.codec.codec import (
    CodecConfig,
    frame_to_sample,
    pad_to_hop,
    sample_to_frame,
)
from sam_audio_jax.convert.codec import (
    codec_from_reference,
    codec_to_reference,
    watermark_settings,
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
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["codec"].items()}
    mark = watermark_settings(state, len(sizes["decoder_rates"]))
    codec = codec_from_reference(state, CodecConfig(**sizes, **mark))
    tensors = load_file(FOLDER / f"{request.param}.tensors.safetensors")
    return settings, codec, {k: channels_last(v) for k, v in tensors.items()}, state


def channels_last(value):
    return value.swapaxes(1, 2) if value.ndim == 3 else value


def agree(got, want):
    """Within 1e-4 of the largest value, and of one where that is larger."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * max(1.0, np.abs(want).max()))


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
    x = codec.encoder.stem(jnp.asarray(tensors["in0.wave_padded"]))
    agree(x, tensors["in0.encoder_stage_0"])
    for i, block in enumerate(codec.encoder.blocks):
        x = block(x)
        agree(x, tensors[f"in0.encoder_stage_{i + 1}"])
    x = codec.encoder.snake(x)
    agree(x, tensors[f"in0.encoder_stage_{i + 2}"])
    agree(codec.encoder.out(x), tensors[f"in0.encoder_stage_{i + 3}"])


def test_padding_moments_and_latents(case):
    settings, codec, tensors, _ = case
    for name, wave in inputs(settings, tensors):
        padded = pad_to_hop(wave[..., 0], codec.config.hop)
        np.testing.assert_array_equal(padded, tensors[f"{name}.wave_padded"][..., 0])
        mean, deviation = codec.moments(jnp.asarray(padded))
        agree(mean, tensors[f"{name}.mean"])
        agree(codec.encode(jnp.asarray(padded)), tensors[f"{name}.mean"])
        agree(mean + deviation * tensors[f"{name}.eps"], tensors[f"{name}.sample"])


def test_decoder_stages_and_waves(case):
    _, codec, tensors, _ = case
    x = codec.out_proj(jnp.asarray(tensors["dec.latent"]))
    agree(x, tensors["dec.emb"])
    x = codec.decoder.stem(x)
    agree(x, tensors["dec.decoder_stage_0"])
    for i, block in enumerate(codec.decoder.blocks):
        x = block(x)
        agree(x, tensors[f"dec.decoder_stage_{i + 1}"])
    latents = jnp.asarray(tensors["dec.latent"])
    agree(codec.decode(latents), tensors["dec.wave_clean"][..., 0])
    marked = codec.decode(latents, watermark=jnp.asarray(tensors["dec.message"], jnp.int32))
    agree(marked, tensors["dec.wave_marked"][..., 0])


def test_watermark_signal_and_code(case):
    _, codec, tensors, _ = case
    wave, message = jnp.asarray(tensors["dec.wave_clean"]), jnp.asarray(tensors["dec.message"])
    code = codec.watermark.encode(wave)
    agree(code, tensors["dec.wm_code"])
    message = message.astype(jnp.int32)
    agree(code + codec.watermark.embed(message), tensors["dec.wm_code_msg"])
    agree(codec.watermark(wave, message), tensors["dec.wm_signal"])


def test_round_trips(case):
    settings, codec, tensors, _ = case
    for name, _ in inputs(settings, tensors):
        latents = jnp.asarray(tensors[f"{name}.mean"])
        message = jnp.asarray(tensors[f"{name}.roundtrip_message"], jnp.int32)
        agree(codec.decode(latents), tensors[f"{name}.roundtrip_wave_clean"][..., 0])
        marked = codec.decode(latents, watermark=message)
        agree(marked, tensors[f"{name}.roundtrip_wave_marked"][..., 0])


def test_indices(case):
    settings, codec, _, _ = case
    for item in settings["indices"]["cases"]:
        function = {
            "wav_idx_to_feature_idx": sample_to_frame,
            "feature_idx_to_wav_idx": frame_to_sample,
        }[item["fn"]]
        assert function(item["idx"], codec.config, item["sample_rate"]) == item["result"], item


def test_export_gives_the_same_tensors_back(case):
    _, codec, _, state = case
    exported = codec_to_reference(codec)
    assert set(exported) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(exported[name], value, err_msg=name)
