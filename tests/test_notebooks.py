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
    """In its short form: a narrow separator, two mixtures to evaluate, seconds of training."""
    ran = Ran(
        "train",
        shell,
        FOLDER=str(tmp_path / "notebook"),
        ITEMS=64,
        MINUTES=0.1,
        HELD_OUT=2,
        SEPARATOR=["--separator.dit.depth", "2", "--separator.dit.unroll", "2"],
    )
    assert "SI-SDR improvement" in ran.printed
    assert "follows" not in ran.printed
    assert " % (" in ran.printed  # prompt following
    assert len(ran.names["losses"]) > 0
    assert ran.kinds("image/png") == 1
    steps = ran.names["Workdir"](ran.names["run"]).steps()
    assert max(steps) > ran.names["step"]  # the second call went on


STUDY = ["--widths", "16", "32", "--seeds", "1"]


def test_plan_a_small_run_without_the_compiler(shell):
    flags = ["--batch", "32", "--mesh.data", "1", "--mesh.fsdp", "8"]
    ran = Ran("plan", shell, CONFIG="quickstart", FLAGS=flags, COMPILE=False, STUDY=STUDY)
    assert ran.names["parameters"] == 4_615_042
    assert "data 1, fsdp 8: state" in ran.printed
    assert "assumed, MFU 30 %" in ran.printed
    assert "chip-hours of v5e-8 at an MFU of 10.0%" in ran.printed


@pytest.mark.long
def test_plan_a_pod_run(shell):
    ran = Ran("plan", shell, STUDY=STUDY)
    assert ran.names["figures"]["fits"]
    assert "compiled, realistic" in ran.printed
