"""The wheel alone is enough: installed into an empty environment it separates, trains, evaluates.

Each command loads JAX and compiles in a process of its own.
"""

import importlib.metadata
import json
import pathlib
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from sam_audio_jax import audio
from tests.children import ROOT, environment

pytestmark = pytest.mark.processes


def run(*command: str, folder: pathlib.Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), folder=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sam_audio(wheel, tmp_path_factory):
    """Runs `sam-audio` of an environment with the wheel and the dependencies of this interpreter.

    A .pth file names their folder, whose own .pth files, that of an editable installation among
    them, have no effect there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    run(*pip, "--no-index", "--no-deps", "--no-compile", str(wheel), folder=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = "import sam_audio_jax, sys; sys.exit(sam_audio_jax.__file__)"
    imported = subprocess.run(
        [python, "-c", where], cwd=folder, env=environment(PYTHONPATH=""), capture_output=True
    )
    assert pathlib.Path(imported.stderr.decode().strip()).is_relative_to(site)

    def call(*arguments: str) -> str:
        command = (str(folder / "bin" / "sam-audio"), *arguments)
        return run(*command, folder=folder, PYTHONPATH="")

    return call


def test_the_wheel_has_configs_model_and_sound_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"sam_audio_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert configs <= names
    assert "sam_audio_jax/data/embedded/mixtures.jsonl" in names
    assert any(name.startswith("sam_audio_jax/pretrained/tiny/") for name in names)
    others = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert others == {"sam_audio_jax"}
    assert not any("__pycache__" in name for name in names)


def test_the_installed_wheel_separates(sam_audio, tmp_path):
    assert sam_audio("--version").strip() == importlib.metadata.version("sam-audio-jax")
    recording = next((ROOT / "sam_audio_jax/data/embedded/audio/sfx").glob("*.ogg"))
    out = tmp_path / "stems"
    sam_audio("separate", str(recording), "--text", "dog barking", "--out", str(out))
    seconds = audio.load(recording).samples.shape[-1] / audio.load(recording).sample_rate
    stem = audio.load(out / "target.wav")
    assert stem.samples.shape[-1] / stem.sample_rate == pytest.approx(seconds, abs=0.01)
    assert (out / "residual.wav").is_file()


@pytest.mark.long
def test_the_installed_wheel_trains_and_evaluates(sam_audio, tmp_path):
    """Takes half a minute; the commands themselves are tested from the source."""
    workdir, report = (tmp_path / name for name in ("run", "report"))
    sam_audio(
        *("train", "quickstart", "--workdir", str(workdir), "--steps", "2", "--batch", "2"),
        *("--data.mix.seconds", "1", "--eval-bench", "", "--log-every", "1"),
        *("--separator.dit.depth", "1", "--text.depth", "1"),
    )
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"train"' in line] == [1, 2]

    sam_audio(
        *("evaluate", "--workdir", str(workdir), "--bench", "embedded", "--out", str(report)),
        *("--limit", "1", "--prompts", "text", "--listen", "1"),
    )
    assert json.loads((report / "results.json").read_text())["mixtures"] == {"sfx": 1}
    assert (report / "report.html").is_file()
