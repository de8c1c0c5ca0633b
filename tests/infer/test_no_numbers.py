"""A model that computes NaN separates nothing: every way to call it refuses and writes no file."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from sam_audio_jax import SAMAudio
from sam_audio_jax.cli import separate as command
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.processor import SAMAudioProcessor
from sam_audio_jax.infer.stems import TOO_LOUD, check_waves
from sam_audio_jax.infer.stream import stream

RATE = 8_000
REFUSAL = "the model computes no sound for"
STEM = "audio_codec.encoder.block.0.weight_v"


def with_stem(folder, path, change):
    """A copy of a model folder whose first convolution is changed."""
    shutil.copytree(folder, path)
    state = load_file(path / "checkpoint.safetensors")
    state[STEM] = change(state[STEM])
    save_file(state, path / "checkpoint.safetensors")
    return path


@pytest.fixture(scope="module")
def broken(folder, tmp_path_factory):
    """A folder of finite weights: a direction without a length gives a kernel of NaN."""
    return with_stem(folder, tmp_path_factory.mktemp("broken") / "folder", np.zeros_like)


@pytest.fixture(scope="module")
def broken_model(broken):
    return SAMAudio.from_pretrained(
        broken, long_audio=LongAudioConfig(window_s=1.0, overlap_s=0.25, one_shot_s=1.0)
    )


def test_weights_that_are_no_numbers_are_not_read(folder, tmp_path):
    def spoilt(kernel):
        kernel[0, 0, 0] = np.nan
        return kernel

    path = with_stem(folder, tmp_path / "folder", spoilt)
    with pytest.raises(UserError, match=f"{STEM} has values that are NaN or infinite"):
        SAMAudio.from_pretrained(path)


@pytest.mark.parametrize(
    ("seconds", "call"),
    [(0.5, {"text": "dog"}), (1.5, {"text": ["dog", "cat"], "joint": True})],  # and in windows
)
def test_no_stems_are_returned(broken_model, noise_of, seconds, call):
    with pytest.raises(UserError, match=f"{REFUSAL} audio"):
        broken_model.separate(noise_of(seconds), sample_rate=RATE, **call)


def test_no_batch_and_no_piece_of_a_stream_is_returned(broken, broken_model, noise_of):
    batch = SAMAudioProcessor.from_pretrained(broken)(["dog"], [noise_of(0.5)[None]])
    with pytest.raises(UserError, match=f"{REFUSAL} item 0"):
        broken_model.separate(batch)
    with pytest.raises(UserError, match=f"{REFUSAL} the stream"):
        list(stream(broken_model, [noise_of(0.5)], RATE, text="dog"))


def test_one_item_of_a_manifest_fails_alone(folder, noise_of, tmp_path):
    """Its recording is so loud that spectra of it overflow."""
    for name, gain in (("street", 1), ("loud", 1e36)):
        wave = (gain * noise_of(0.5)).astype(np.float32)
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
    lines = [{"id": name, "audio": f"{name}.wav", "text": "dog"} for name in ("street", "loud")]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--manifest", str(tmp_path / "items.jsonl"), "--checkpoint", str(folder)]
    out = tmp_path / "out"
    assert command.main([*arguments, "--out", str(out)]) == 1
    assert sorted(file.name for file in out.glob("*.wav")) == [
        "street.residual.wav",
        "street.target.wav",
    ]
    assert "loud.wav has a sample of" in (out / "failed.jsonl").read_text()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -2 * TOO_LOUD])
def test_one_value_is_enough(value):
    waves = np.zeros((2, 2, 5), np.float32)
    check_waves(waves, "audio")
    check_waves(waves[..., :0], "audio")
    waves[1, 0, 3] = value
    with pytest.raises(UserError, match="audio"):
        check_waves(waves, "audio")
