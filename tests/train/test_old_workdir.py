"""A workdir of an earlier version is continued: same weights, same data, same losses."""

import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from sam_audio_jax.workdir import Workdir
from tests.children import environment

pytestmark = pytest.mark.processes
ROOT = pathlib.Path(__file__).parent.parent.parent
ARCHIVE = pathlib.Path(__file__).parent / "golden" / "workdir_v1.tar.gz"
# Of steps 11 to 15, by the version that wrote the workdir (see golden/README.md).
LOSSES = [
    1.0572936534881592,
    0.9593337178230286,
    1.0176275968551636,
    1.0233360528945923,
    0.9758819341659546,
]


def test_a_workdir_of_format_1_is_continued_with_the_losses_of_its_own_version(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        # The first releases of Python 3.11 have no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    command = [sys.executable, str(ROOT / "launch/train.py"), str(ROOT / "tests/train/tiny.py")]
    flags = ["--data.source.manifests", "tones/manifest.jsonl", "--log-every", "1", "--steps", "15"]
    flags += ["--codec-checkpoint", ""]  # as the run was started; today that needs a name
    done = subprocess.run(
        [*command, "--workdir", "run", *flags],
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on from step 10" in done.stderr
    losses = {line["step"]: line["loss"] for line in Workdir(tmp_path / "run").read_metrics()}
    assert list(losses) == list(range(1, 16))
    np.testing.assert_allclose([losses[step] for step in range(11, 16)], LOSSES, rtol=1e-5)
    assert Workdir(tmp_path / "run").steps()[-1] == 15
