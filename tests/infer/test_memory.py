"""The memory of a call, stated from shapes and compiled programs alone."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.cli import info
from sam_audio_jax.convert.load import describe_model
from sam_audio_jax.infer import memory
from sam_audio_jax.infer.solve import Networks
from tests.children import environment
from tests.convert.synthetic import write_synthetic

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE / "memory_account.py"


def networks_of(folder, storage) -> Networks:
    model = describe_model(str(folder), storage)
    return Networks(model.codec, model.prompted.text_encoder, model.prompted.separator)


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_weights_are_counted_without_being_read(folder, model, storage):
    if storage == "int8":
        pytest.importorskip("qwix")
    networks = networks_of(folder, storage)
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(networks)))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    counted, whole = memory.weight_bytes(networks), memory.weight_bytes(model.pipeline.networks)
    assert counted == whole if storage == "float32" else counted < whole


def test_reading_takes_the_weights_and_what_narrows_them(folder):
    networks = networks_of(folder, "bfloat16")
    codec = memory.weight_bytes(networks.codec)
    prompted = [networks.text_encoder, networks.separator]
    narrow = codec + sum(map(memory.weight_bytes, prompted))
    in_float32 = networks_of(folder, "float32")
    whole = memory.weight_bytes(in_float32)
    assert memory.reading_bytes(in_float32, whole=True) == whole
    one_by_one = memory.reading_bytes(networks)
    assert narrow < one_by_one
    # A run's matrices are float32 until all of them are read; the codec is folded by then.
    unfolded = memory.weight_bytes(in_float32.codec)
    assert memory.reading_bytes(networks, whole=True) > codec + whole - unfolded


@pytest.mark.processes
def test_the_account_is_that_of_the_programs_that_run(folder, model):
    """In a process without type checks, which know no shape in place of an array."""
    run = subprocess.run(
        [sys.executable, SCRIPT, folder, "float32", "1.5", "0.5", "3.0"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    short, long = (memory.Peak(**peak) for peak in json.loads(run.stdout))
    # At least the wave, the noise and both stems; at most the size of all activations here.
    frames, hop = model.codec.config.frames(4_000), model.codec.config.hop
    arrays = 4 * (frames * hop + frames * 16 + 2 * frames * hop)
    assert arrays < short.program < 100 * arrays
    assert short.total == short.weights + short.program + short.waves + short.process
    assert short.weights <= short.reading < short.total - short.process
    assert short.weights == memory.weight_bytes(model.pipeline.networks)
    assert short.process > 1e8  # JAX alone has more
    assert long.program > short.program  # in windows
    assert long.waves == pytest.approx(6 * short.waves, rel=0.05)


@pytest.mark.long  # the codec at full size, compiled as users do
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_the_account_is_within_a_tenth_of_what_a_separation_takes(tmp_path, storage):
    if storage == "int8":
        pytest.importorskip("qwix")
    transformer = {"dim": 768, "context_dim": 768, "n_heads": 12, "n_layers": 6}
    config = {"transformer": transformer, "text_encoder": {"dim": 768, "name": "byt5"}}
    write_synthetic(tmp_path / "model", config, {"vocab_size": 384, "num_layers": 4})
    printed = []
    for script, *seconds in ((SCRIPT, "30", "4"), (HERE / "separation_memory.py", "4")):
        run = subprocess.run(
            [sys.executable, script, tmp_path / "model", storage, *seconds],
            env=environment(XLA_FLAGS="", JAX_COMPILATION_CACHE_DIR=""),
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        printed.append(json.loads(run.stdout))
    ((stated,), measured) = printed
    assert memory.Peak(**stated).total == pytest.approx(measured, rel=0.1), stated


def test_the_command_lists_parts_and_peaks(folder, tmp_path, capsys, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    ranker = {"kind": "ensemble", "rankers": {"clap": [{"kind": "clap"}, 5.0]}}
    named = tmp_path / "model"
    named.mkdir()
    for file in folder.iterdir():
        (named / file.name).symlink_to(file)
    (named / "config.json").unlink()
    (named / "config.json").write_text(json.dumps(config | {"text_ranker": ranker}))
    (named / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    peak = memory.Peak(
        weights=4_000_000,
        program=3_000_000,
        waves=2_000_000,
        process=1_000_000,
        reading=5_000_000,
    )
    monkeypatch.setattr(memory, "peak_of_call", lambda *_, **__: peak)
    file = tmp_path / "peaks.json"
    assert info.main([str(named), "--dtype", "bfloat16", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "licence cc-by-4.0" in printed
    assert "vision tower" in printed
    assert "clap" in printed
    assert "text_ranker" in printed
    assert "10 = 4 + 3 + 2 + 1" in printed
    assert json.loads(file.read_text())["bfloat16"]["10 min"]["total"] == 10_000_000
    peak = dataclasses.replace(peak, reading=11_000_000)
    assert info.main([str(named), "--dtype", "bfloat16"]) == 0
    assert "12 = 11 + 1" in capsys.readouterr().out
    assert info.main([str(named), "--no-memory"]) == 0
    assert "peak memory" not in capsys.readouterr().out
    assert info.main([str(named), "--no-memory", "--json", str(tmp_path / "none.json")]) == 2
    assert "--json is for the peaks, which --no-memory leaves out" in capsys.readouterr().err
    (tmp_path / "file").touch()
    monkeypatch.setattr(memory, "peak_of_call", None)  # the place is tried before peaks are made
    assert info.main([str(named), "--json", str(tmp_path / "file" / "peaks.json")]) == 2
    assert "--json, the folder" in capsys.readouterr().err
    monkeypatch.setattr(memory, "peak_of_call", lambda *_, **__: peak)
    file = tmp_path / "new" / "peaks.json"
    assert info.main([str(named), "--dtype", "bfloat16", "--json", str(file)]) == 0
    assert file.is_file()
    capsys.readouterr()
    assert info.main(["nothing"]) == 2
    assert np.char.count(capsys.readouterr().err, "\n") == 1


def test_the_parts_of_the_shipped_model_are_listed(capsys):
    assert info.main(["tiny", "--no-memory"]) == 0
    parts = capsys.readouterr().out
    assert re.search(r"audio tower +992,978  by the first example", parts)
    assert "vision tower" not in parts
    assert re.search(r"judge +by the first --candidates: text_ranker", parts)
