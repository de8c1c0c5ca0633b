import os
import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = sorted(set((ROOT / "launch" / "tpu").glob("*.sh")) - {ROOT / "launch/tpu/common.sh"})
ENVIRONMENT = {
    **{"ZONE": "here-a", "PROJECT": "p", "CLUSTER": "c", "IMAGE": "i", "SOURCE": "https://x/y"},
    **{"PATH": os.environ["PATH"], "PARTITION": "gpu", "SPOT": "1"},
}
COMMAND = ["launch/train.py", "configs/small.py", "--workdir", "/mnt/bucket/a run"]


def call(script: pathlib.Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(script), *arguments],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_there_is_a_script_for_each_kind_of_cluster():
    assert [path.stem for path in SCRIPTS] == ["gke_xpk", "queued_resources", "slurm"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_parse_and_print_what_they_would_do(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "Environment: NAME" in call(script, "--help").stdout
    done = call(script, "--dry-run", *COMMAND)
    assert done.returncode == 0, done.stderr
    printed = [shlex.split(line) for line in done.stdout.splitlines()]
    tool = {"gke_xpk": "xpk", "queued_resources": "gcloud", "slurm": "sbatch"}[script.stem]
    commands = [words for words in printed if words[0] == tool]
    assert commands, done.stdout
    run_on_hosts = shlex.split(commands[-1][-1].removeprefix("--command=").removeprefix("--wrap="))
    if run_on_hosts[:2] == ["bash", "-c"]:
        run_on_hosts = shlex.split(run_on_hosts[2])
    assert run_on_hosts[-4:] == COMMAND  # the space in the folder's name survives


def test_a_missing_setting_is_named():
    done = call(ROOT / "launch/tpu/gke_xpk.sh", "--dry-run", *COMMAND, CLUSTER="")
    assert done.returncode
    assert "set CLUSTER" in done.stderr


def test_a_text_survives_the_shell_of_a_slurm_job(tmp_path):
    """SLURM runs the command by sh, which knows no $'...'."""
    (tmp_path / "srun").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (tmp_path / "srun").chmod(0o755)
    text = "H\u00fchner\tund 'mehr'"
    done = call(ROOT / "launch/tpu/slurm.sh", "--dry-run", "x.py", "--text", text, LC_ALL="C")
    (words,) = [shlex.split(line) for line in done.stdout.splitlines()]
    # What `run` prints is for bash.
    echo = ["bash", "-c", f"printf %s {done.stdout.split('--requeue')[1].split('--wrap=')[1]}"]
    command = subprocess.run(echo, capture_output=True, text=True, check=True).stdout
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.run(
        ["sh", "-c", command], env=path, capture_output=True, text=True, check=True
    )
    assert job.stdout.splitlines()[-1] == text
    assert words[0] == "sbatch"


def test_every_host_gets_one_revision():
    done = call(ROOT / "launch/tpu/queued_resources.sh", "--dry-run", *COMMAND, REVISION="abc")
    commands = [shlex.split(line)[-1] for line in done.stdout.splitlines()]
    assert any("git fetch -q --depth 1 origin abc && git checkout" in one for one in commands)
