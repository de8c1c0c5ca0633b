"""The recipes' train steps, compiled by the real TPU compiler. Needs libtpu, else all are skipped.

Slow for the compiler's sake: about a minute of CPU each, with the least effort it can be asked for.
"""

import importlib.util
import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from sam_audio_jax.train.config import TrainConfig

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARY = pathlib.Path(sys.prefix, "libtpu", "libtpu", "libtpu.so")  # where launch/plan.py looks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (LIBRARY.is_file() or importlib.util.find_spec("libtpu")),
        reason="libtpu, the TPU's compiler, is not installed",
    ),
]

SMALL_SLICE = (
    *("--batch", "32", "--mesh.data", "1", "--mesh.fsdp", "8"),
    *("--separator.dit.remat", "full"),
)


def run(*argv: str, limit: int = 900) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *argv], cwd=ROOT, env=env, capture_output=True, text=True, timeout=limit
    )


def abstract_training_of(topology: str, *argv: str) -> dict:
    done = run(str(HERE / "aot.py"), topology, *argv)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def recipe(size: str) -> TrainConfig:
    return runpy.run_path(str(ROOT / "configs" / f"{size}.py"))["CONFIG"]


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_train_step_fits_eight_chips_and_gathers_each_weight_once_a_pass(size):
    figures = abstract_training_of("v5e:2x4", f"configs/{size}.py", *SMALL_SLICE)
    check(figures, recipe(size))


def test_large_recipe_on_256_chips():
    figures = abstract_training_of("v5e-256", "configs/large.py@v5e-256")
    check(figures, recipe("large"))
    assert figures["mfu"] > 0.5
    assert figures["batch"] == 1024


def check(figures: dict, config: TrainConfig) -> None:
    assert figures["fits"]
    assert figures["needed"] < 15.75 * 2**30
    assert figures["attention"] == "splash"
    # All of the state is donated: what comes out lies where it came in.
    assert figures["donated"] == pytest.approx(figures["state"], rel=0.02)
    loops = [c for c in figures["all"] if c["times"] > 1 and c["result"] > 2**16]
    # (Of activations only the few text tokens may be, where that is less than their gradients.)
    gathers = [c for c in loops if c["kind"] == "all-gather" and "convert_element" in c["source"]]
    assert all(c["of"] == ["bf16"] and c["axes"] == ["fsdp"] for c in gathers)
    # A block's weights are gathered once forwards and once backwards, the frozen encoder's once.
    dit, text = config.separator.dit, config.text
    blocks = dit.depth * (8 * dit.width**2 + 3 * dit.width * dit.mlp)
    encoder = text.depth * (4 * text.width**2 + 2 * text.width * text.mlp)
    gathered = sum(c["times"] * c["result"] for c in gathers)
    assert gathered == pytest.approx(2 * (2 * blocks + encoder), rel=0.01)
    # Gradients are scattered: what is summed whole inside the loops is a small part of them.
    reduced = sum(c["times"] * c["result"] for c in loops if c["kind"] == "all-reduce")
    assert reduced < 2 * blocks / 8


def test_what_does_not_fit_is_said():
    done = run(
        *("launch/plan.py", "configs/small.py", "--topology", "v5e:2x2", "--fast"),
        *("--skip-sampler", "--batch", "512", "--mesh.data", "1", "--mesh.fsdp", "4"),
        *("--separator.dit.remat", "none", "--separator.dit.attention", "xla"),
    )
    assert done.returncode == 1, done.stderr
    assert "DOES NOT FIT" in done.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["configs/small.py", "--topology", "v5e-7"], "v5e comes as"),
        (["configs/small.py"], "topology"),
        (["configs/small.py@v5e-512", "--topology", "v5e-256"], "no recipe"),
        (["configs/small.py@v5e-256", "--batch", "100"], "batch=100"),
    ],
)
def test_wrong_inputs_are_one_line(argv, said):
    done = run("launch/plan.py", *argv)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
