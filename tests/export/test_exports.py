"""Programs that `export` writes run without the package and give what the model gives."""

import json
import pathlib
import runpy
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.cli import main
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.encoders.text_form import normalize
from sam_audio_jax.errors import UserError
from sam_audio_jax.export import exported_folder, stablehlo
from sam_audio_jax.export.networks import programs_of
from sam_audio_jax.export.solver_steps import solver_steps
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.separator.flow import SamplerConfig, sample
from tests.children import ROOT, environment

EXAMPLE = ROOT / "examples" / "separate_stablehlo.py"
SOUNDS = ROOT / "sam_audio_jax" / "data" / "embedded"
# Runs the example where the package cannot be imported.
WITHOUT_PACKAGE = """
import runpy, sys
sys.modules["sam_audio_jax"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Runs models where neither the package nor JAX can be imported.
RUN_ONNX = """
import sys
sys.modules["sam_audio_jax"] = sys.modules["jax"] = None
import numpy, onnxruntime
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, dict(numpy.load(path + ".npz")))
    numpy.save(path + ".npy", result)
"""
OF_BYTES = {"offset": 3, "end": 1}
PROMPTS = {"text": "A woman  speaking.", "spans": [("+", 0.5, 1.1)], "seed": 3}


def test_the_example_reads_a_text_as_the_package_does():
    token_ids = runpy.run_path(str(EXAMPLE))["token_ids"]
    model = {"normalizes_text": True, "tokenizer": {"kind": "bytes", "most": 99} | OF_BYTES}
    for text in ("A  Dog.", "\u2121 \uff21", "\u017f\u0130x."):
        ids = [byte + OF_BYTES["offset"] for byte in normalize(text).encode()]
        assert token_ids(model, None, text).tolist() == [[*ids, OF_BYTES["end"]]]


def test_the_example_refuses_silence(tmp_path, monkeypatch, capsys):
    (tmp_path / "export.json").write_text('{"sample_rate": 16000}')
    silence = tmp_path / "silence.wav"
    audio.write_wav(silence, np.zeros((1, 800), np.float32), 16000)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path), str(silence)])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "silence.wav is silent" in capsys.readouterr().err


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> pathlib.Path:
    """Speech and another sound, 1.3 s at the rate of `tiny`, which is not whole frames."""
    entries = [json.loads(line) for line in (SOUNDS / "manifest.jsonl").open()]
    waves = []
    for category in ("speech", "sfx"):
        path = next(entry["path"] for entry in entries if entry["category"] == category)
        recording = audio.load(SOUNDS / path)
        whole = audio.resample(recording.samples[0], recording.sample_rate, 16_000)
        waves.append(whole[:20_911])
    path = tmp_path_factory.mktemp("mixture") / "mixture.wav"
    soundfile.write(path, waves[0] + waves[1], 16_000, subtype="FLOAT")
    return path


@pytest.mark.processes
def test_the_example_separates_as_the_package_does(tmp_path, mixture, capsys):
    folder, out = tmp_path / "programs", tmp_path / "out"
    assert main(["export", "tiny", "--format", "stablehlo", "--out", str(folder)]) == 0
    assert capsys.readouterr().err.count("differs from the model by") == 4
    words = [EXAMPLE, folder, mixture, "--text", PROMPTS["text"], "--span", "+", "0.5", "1.1"]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE, *map(str, words), "--seed", "3", "--out", str(out)],
        env=environment() | {"PYTHONPATH": ""},
        check=True,
        timeout=300,
    )
    stems = SAMAudio.from_pretrained("tiny").separate(mixture, **PROMPTS)
    for name in ("target", "residual"):
        wave, _ = soundfile.read(out / f"{name}.wav", dtype="float32")
        wanted = getattr(stems, name)
        assert np.abs(wave - wanted).max() <= 1e-4 * np.abs(wanted).max()
    described = json.loads((folder / "export.json").read_text())
    assert set(described["files"]) == {path.name for path in folder.iterdir()} - {"export.json"}
    assert described["programs"]["velocity"]["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "ab3"])
def test_listed_solver_steps_are_those_of_the_sampler(method):
    sampler = SamplerConfig(method=method, steps=3)
    noise = jnp.linspace(-1, 1, 6).reshape(1, 2, 3)
    velocity = lambda x, t: jnp.sin(3 * x + t[:, None, None])  # noqa: E731
    x, slopes = noise, []
    for step in solver_steps(sampler):
        for one in step["evaluate"]:
            state = x + sum(factor * slopes[number] for number, factor in one["add"])
            slopes.append(velocity(state, jnp.full(1, one["time"])))
        x = x + sum(factor * slopes[number] for number, factor in step["add"])
    np.testing.assert_allclose(x, sample(velocity, noise, sampler), atol=1e-6)
    assert len(slopes) == 3 * sampler.evaluations_per_step


def test_a_program_that_differs_is_not_written(tmp_path, monkeypatch):
    run = stablehlo.run
    monkeypatch.setattr(stablehlo, "run", lambda *arguments: run(*arguments) * 1.001)
    with pytest.raises(UserError, match=r"exported encoder differs from the model by 1\.0e-03"):
        exported_folder.export_model(
            "tiny", tmp_path / "out", "stablehlo", seconds=1.0, tokens=8, report=print
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stablehlo", "--seconds", "3"], "--seconds has no effect on stablehlo"),
        (["stablehlo", "--tokens", "3"], "--tokens has no effect on stablehlo"),
        (["onnx", "--seconds", "1e-6"], "--seconds 1e-06 are 0 frames of tiny, which reads 1 to"),
        (["onnx", "--seconds", "500"], "--seconds 500 are 12500 frames of tiny, which reads 1 to"),
    ],
)
def test_sizes_without_effect_or_of_no_model_are_refused(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(exported_folder.onnx_models, "require", lambda: None)
    assert main(["export", "tiny", "--out", str(tmp_path / "out"), "--format", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.processes
def test_onnx_models_give_what_the_networks_give_without_the_package(tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra [onnx] and jax2onnx are not installed")
    folder = tmp_path / "models"
    words = ["--format", "onnx", "--seconds", "2", "--tokens", "8", "--out", str(folder)]
    assert main(["export", "tiny", *words]) == 0
    codec, prompted, _, _ = load_networks("tiny")
    fixed = {"batch": 1, "frames": 50, "tokens": 8}  # of the velocity; sizes of others are open
    wanted = {}
    for program in programs_of(codec, prompted):
        path = folder / f"{program.name}.onnx"
        sizes = fixed if program.name == "velocity" else {"batch": 2, "frames": 31, "tokens": 5}
        inputs = program.draw_inputs(sizes, seed=7)
        np.savez(f"{path}.npz", **inputs)
        wanted[path] = np.asarray(Compiled(program.network)(program.call, *inputs.values()))
    subprocess.run(
        [sys.executable, "-c", RUN_ONNX, *map(str, wanted)],
        env=environment() | {"PYTHONPATH": ""},
        check=True,
        timeout=300,
    )
    for path, network in wanted.items():
        difference = np.abs(np.load(f"{path}.npy") - network).max() / np.abs(network).max()
        assert difference < 1e-4, path.name


def test_a_missing_converter_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert main(["export", "tiny", "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "needs jax2onnx: pip install" in capsys.readouterr().err
