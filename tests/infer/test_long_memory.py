"""Host memory while a long recording is separated: it grows by the waves and by little else."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.children import environment

SCRIPT = pathlib.Path(__file__).parent / "peak_memory.py"
RATE = 8_000
LENGTHS = (300, 900)  # seconds


@pytest.mark.long  # separates 40 minutes of audio
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("refine", ["none", "wiener"])
def test_memory_grows_by_the_stems_alone(folder, refine):
    """Memory beside the recording itself: two waves of its length and a few percent."""
    run = subprocess.run(
        [sys.executable, SCRIPT, folder, refine, *map(str, LENGTHS)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    rose = json.loads(run.stdout)
    waves = (rose[1] - rose[0]) / (4 * RATE * (LENGTHS[1] - LENGTHS[0]))
    assert waves < 2.5, rose
