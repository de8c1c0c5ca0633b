"""The recipes' training steps, compiled by the real TPU compiler; skipped where libtpu is missing.

Each takes most of a minute of CPU, with the least effort that the compiler can be asked for. That
depends on how many different instructions there are, so the ordinary test has one loop of narrow
blocks; the published sizes are compiled with `--long`.
"""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

from sam_audio_jax import config
from sam_audio_jax.cli.plan import main
from sam_audio_jax.train.config import TrainConfig
from tests.children import ROOT, environment

AOT = pathlib.Path(__file__).parent / "aot.py"
LIBRARY = pathlib.Path(sys.prefix, "libtpu", "libtpu", "libtpu.so")  # where the command looks

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(
        not (LIBRARY.is_file() or importlib.util.find_spec("libtpu")),
        reason="libtpu, the TPU's compiler, is not installed",
    ),
]

SMALL_SLICE = (
    *("--batch", "32", "--mesh.data", "1", "--mesh.fsdp", "8"),
    *("--separator.dit.remat", "full"),
)
NARROW = (
    *("--separator.dit.width", "768", "--separator.dit.heads", "6", "--separator.dit.mlp", "2048"),
    *("--separator.dit.depth", "4", "--alignment.weight", "0"),
)
THOROUGH = (*SMALL_SLICE, *NARROW, "--skip-sampler")
LONG = pytest.mark.long


def run(*argv: str, limit: int = 900) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=limit,
    )


def figures_of(topology: str, *argv: str) -> dict:
    done = run(str(AOT), topology, *argv)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_chip_is_a_slice():
    code = (
        "import sam_audio_jax.cli.plan; from sam_audio_jax.plan.chips import parse; "
        "print([len(parse(name).devices()) for name in ('v5e-1', 'v6e-1')])"
    )
    done = run("-c", code)
    assert done.stdout.strip() == "[1, 1]", done.stderr


def test_train_step_gathers_each_weight_once_a_pass_and_its_schedule_is_read():
    """Takes long because the TPU's compiler compiles a whole training step."""
    figures = figures_of("v5e:2x4", "small", *SMALL_SLICE, *NARROW)
    check(figures, config.from_cli(["small", *NARROW]))
    check_schedule(figures)


@LONG
@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_train_step_fits_eight_chips(size):
    figures = figures_of("v5e:2x4", size, *SMALL_SLICE)
    check(figures, config.from_cli([size]))
    check_schedule(figures)


@LONG
def test_large_recipe_on_256_chips():
    figures = figures_of("v5e-256", "large@v5e-256")
    check(figures, config.from_cli(["large"]))
    assert figures["mfu"] > 0.5
    assert figures["batch"] == 1024


def check(figures: dict, cfg: TrainConfig) -> None:
    assert figures["fits"]
    assert figures["needed"] < 15.75 * 2**30
    assert figures["attention"] == "splash"
    # All of the state is donated: the new state is written where the old one was.
    assert figures["donated"] == pytest.approx(figures["state"], rel=0.02)
    loops = [c for c in figures["all"] if c["times"] > 1 and c["result"] > 2**16]
    # (Of activations only the few text tokens may be, where that is less than their gradients.)
    gathers = [c for c in loops if c["kind"] == "all-gather" and "convert_element" in c["source"]]
    assert all(c["of"] == ["bf16"] and c["axes"] == ["fsdp"] for c in gathers)
    # A block's weights are gathered once forwards and once backwards, the frozen encoder's once.
    dit, text = cfg.separator.dit, cfg.text
    blocks = dit.depth * (8 * dit.width**2 + 3 * dit.width * dit.mlp)
    encoder = text.depth * (4 * text.width**2 + 2 * text.width * text.mlp)
    gathered = sum(c["times"] * c["result"] for c in gathers)
    assert gathered == pytest.approx(2 * (2 * blocks + encoder), rel=0.01)
    # Gradients are scattered: what is summed whole inside the loops is a small part of them.
    reduced = sum(c["times"] * c["result"] for c in loops if c["kind"] == "all-reduce")
    assert reduced < 2 * blocks / 8


def check_schedule(figures: dict) -> None:
    schedule = figures["schedule"]
    # Every product is found in the text. Attention's kernels have some more than its formula: whole
    # blocks of frames, and the scores a third time.
    counted = figures["flops_done"] / 8
    assert counted < schedule["operations"] < 1.1 * counted
    assert schedule["links"] == pytest.approx(figures["links_s"])
    # The least effort puts nothing between the start and the end of a collective.
    assert schedule["exposed"] == pytest.approx(schedule["links"])
    assert (schedule["covered"], schedule["synchronous"] > 0) == (0, True)
    assert figures["mfu_realistic"] < 0.669  # the best published one
    assert figures["step_realistic_s"] > figures["step_exposed_s"]


@LONG
def test_a_thorough_plan_shows_what_the_schedule_hides():
    """Takes long because the compiler makes the effort of a real run."""
    done = run("launch/plan.py", "small", "--topology", "v5e:2x4", "--thorough", *THOROUGH)
    assert done.returncode == 0, done.stderr
    assert "nothing hidden" not in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  schedule")]
    exposed, links = (int(n) for n in re.findall(r"exposes (\d+) of (\d+) ms", line)[0])
    assert exposed < 0.5 * links


@LONG
def test_a_plan_that_does_not_fit_says_so():
    done = run(
        *("launch/plan.py", "configs/small.py", "--topology", "v5e:2x2", "--skip-sampler"),
        *("--batch", "512", "--mesh.data", "1", "--mesh.fsdp", "4"),
        *("--separator.dit.remat", "none", "--separator.dit.attention", "xla"),
    )
    assert done.returncode == 1, done.stderr
    assert "DOES NOT FIT" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["small", "--topology", "v5e-7"], "v5e comes as"),
        (["small"], "topology"),
        (["small@v5e-512", "--topology", "v5e-256"], "no recipe"),
        (["codec_tiny", "--topology", "v5e-256"], "holds a CodecTrainConfig, not a TrainConfig"),
        (["small", "--topology", "v5e-256", "--rows", "0"], "argument --rows: 0 must be 1 or more"),
    ],
)
def test_wrong_inputs_are_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_batch_that_the_mesh_does_not_divide_is_one_line_from_a_process():
    done = run("launch/plan.py", "small@v5e-256", "--batch", "100")
    assert done.returncode == 2
    assert "batch=100" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
