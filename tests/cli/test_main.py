"""`sam-audio` itself: help, unknown commands, one status for each way to end."""

import importlib
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sam_audio_jax import cli
from sam_audio_jax.cli.command import command
from sam_audio_jax.errors import UserError
from tests.children import environment

ROOT = pathlib.Path(__file__).parents[2]
# Runs the command where Ctrl-C is not ignored: shells let what they start in the background ignore
# it, and children inherit that.
LISTENING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "sam_audio_jax.cli", *sys.argv[1:]])
"""
MODULES = {name: name.replace("-", "_") for name in cli.COMMANDS}


def test_help_names_every_command_and_does_not_wait_for_jax():
    script = (
        "import sys; from sam_audio_jax.cli import main; status = main(['--help']); "
        "sys.exit(status or 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(cli.COMMANDS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no command given; the commands are separate,"),
        (["seperate"], "no command 'seperate'; did you mean separate?"),
        (["train_codec"], "no command 'train_codec'; did you mean train-codec?"),
        (["--workdir"], "no command '--workdir'; "),
    ],
)
def test_an_unknown_command_is_one_line(argv, message, capsys):
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"plan"}))  # plan changes the environment
def test_every_command_has_a_help_and_a_script_in_a_clone(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sam-audio {name} ")
    assert f'run(["{name}", ' in (ROOT / "launch" / f"{MODULES[name]}.py").read_text()


def test_there_is_a_module_for_each_command_and_no_other():
    folder = pathlib.Path(cli.__file__).parent
    others = {"__init__", "__main__", "command"}
    assert {path.stem for path in folder.glob("*.py")} == set(MODULES.values()) | others
    assert {path.stem for path in (ROOT / "launch").glob("*.py")} == set(MODULES.values())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("separate", ["a.wav", "--text", "a", "--out"]),
        *(
            pytest.param(name, arguments, marks=pytest.mark.long)
            for name, arguments in [
                ("evaluate", ["--checkpoint", "tiny", "--out"]),
                ("train", ["tiny", "--workdir"]),
                ("prepare", ["tiny", "--out"]),
            ]
        ),
    ],
)
def test_ctrl_c_while_a_command_loads_is_one_line(name, arguments, tmp_path):
    """Extensions that are being imported turn the interrupt into other errors, or lose it."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, name, *arguments, str(tmp_path / "out")],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    loaded = pathlib.Path("/proc") / str(process.pid) / "maps"
    while "libjax" not in loaded.read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "interrupted\n"
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_threads_compute_is_one_line(tmp_path):
    """The threads that encode ahead must not crash a process that shuts down."""
    arguments = ["prepare", "tests/train/tiny.py", "--items", "1000000", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *arguments[:-1], str(tmp_path / "out")],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.rglob("*.arrayrecord")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].splitlines()[-1] == "interrupted"
    assert process.returncode == 130


def test_an_interrupt_in_a_finalizer_is_not_lost(monkeypatch, capsys):
    """Python prints what a finalizer raises and goes on."""

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work(argv):
        del argv
        Finalized()
        time.sleep(60)

    module = importlib.import_module("sam_audio_jax.cli.info")
    monkeypatch.setattr(module, "main", work)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.main(["info"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted\n"


def test_statuses(capsys, monkeypatch):
    @command
    def fails(argv):
        raise UserError(f"{argv[0]} is wrong")

    @command
    def silent(argv):
        del argv

    def interrupted(argv):
        raise KeyboardInterrupt

    assert fails(["this"]) == 2
    assert capsys.readouterr().err == "error: this is wrong\n"
    assert silent([]) == 0
    module = importlib.import_module("sam_audio_jax.cli.convert")
    monkeypatch.setattr(module, "main", interrupted)
    assert cli.main(["convert"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
