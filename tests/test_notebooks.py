"""The notebooks run from top to bottom, and are stored without outputs."""

import ast
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("IPython", reason="IPython, a part of the extra [notebooks], is not installed")
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture
def shell(monkeypatch, tmp_path) -> Iterator[InteractiveShell]:
    """IPython in this process, without history or settings of the user."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # IPython puts its own
    quiet = Config()
    quiet.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=quiet)
    InteractiveShell.clear_instance()


class Ran:
    """What a notebook printed and displayed, and the names that it left."""

    def __init__(self, name: str, shell: InteractiveShell, **parameters):
        """Executes the cells in order; `parameters` replace values of the cell of that tag."""
        self.names, self.printed, self.shown = shell.user_ns, "", list[dict[str, Any]]()
        for cell in read(FOLDER / f"{name}.ipynb")["cells"]:
            if cell["cell_type"] == "markdown":
                continue
            with capture_output() as captured:
                result = shell.run_cell("".join(cell["source"]))
            self.printed += captured.stdout
            self.shown += [output.data for output in captured.outputs]
            result.raise_error()
            if result.result is not None:  # the value of the last line, which Jupyter displays
                self.shown.append(shell.display_formatter.format(result.result)[0])
            if "parameters" in cell["metadata"].get("tags", ()):
                assert parameters.keys() <= self.names.keys()
                self.names.update(parameters)

    def kinds(self, kind: str) -> int:
        """How many outputs have a representation of this MIME type."""
        return sum(kind in data for data in self.shown)


def read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    """In the form that Jupyter writes, so that opening and saving changes nothing but outputs."""
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert path.read_text() == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse("".join(cell["source"]))


@pytest.mark.long
def test_separate_and_listen(shell):
    ran = Ran("separate", shell)
    assert ran.kinds("image/png") == 2
    players = [data for data in ran.shown if "<audio" in data.get("text/html", "")]
    assert len(players) == 5  # the recording, the three of one prompt, the generated target
    gains = {line[:14].strip(): float(line.split()[-2]) for line in gain_lines(ran.printed)}
    assert gains["spans"] > 3
    assert gains["text and spans"] > 3
    assert float(ran.names["left_over"]) < 1e-6


def gain_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.endswith(" dB")]


@pytest.mark.long
def test_train_a_small_one(shell, tmp_path):
    """In its short form: two layers, twelve updates and then six more, two mixtures to evaluate."""
    ran = Ran(
        "train",
        shell,
        FOLDER=str(tmp_path / "notebook"),
        ITEMS=64,
        STEPS=12,
        HELD_OUT=2,
        FLAGS=[
            *("--separator.dit.depth", "2", "--separator.dit.unroll", "2"),
            *("--log-every", "2", "--optim.warmup-steps", "4"),
        ],
    )
    assert "SI-SDR improvement" in ran.printed
    assert "model/wiener/text+span" in ran.printed
    assert ran.names["losses"].shape == (6,)
    assert 0.5 < ran.names["losses"][0] < 2
    assert ran.names["step"] == 12
    assert ran.names["Workdir"](ran.names["run"]).steps()[-1] == 18
    assert ran.kinds("image/png") == 1


TRAINING = """
import dataclasses
from sam_audio_jax.train.config import OptimConfig
from tests.train.tiny import CONFIG as TINY
CONFIG = dataclasses.replace(
    TINY, optim=OptimConfig(warmup_steps=10), eval_bench="embedded", batch=8
)
"""
STUDY = """
from sam_audio_jax.scaling.study import StudyConfig
from training import CONFIG as BASE
CONFIG = StudyConfig(base=BASE, widths=(16, 32), steps=(100, 200))
"""


def test_plan_a_tiny_run_without_the_compiler(shell, tmp_path):
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "study.py").write_text(STUDY)
    ran = Ran(
        "plan",
        shell,
        CONFIG=str(tmp_path / "training.py"),
        FLAGS=[],
        COMPILE=False,
        STUDY=[str(tmp_path / "study.py")],
    )
    assert ran.names["parameters"] > 1000
    assert "data 1, fsdp 8: state" in ran.printed
    assert "assumed, MFU 30 %" in ran.printed
    assert "chip-hours" in ran.printed


@pytest.mark.long
def test_plan_a_pod_run(shell):
    ran = Ran("plan", shell, STUDY=["scaling_tiny", "--widths", "16", "32", "--seeds", "1"])
    assert ran.names["figures"]["fits"]
    assert "compiled, realistic" in ran.printed
