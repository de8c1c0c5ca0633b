"""Worker processes of the input pipeline end with the process that started them, killed or not."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests import children

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import multiprocessing, time
import numpy as np
from sam_audio_jax.data.pipeline import BatchStream

class Zeros:
    def __len__(self): return 2**32
    def __getitem__(self, index): return {"wave": np.zeros(10, np.float32)}

if __name__ == "__main__":
    batches = BatchStream(Zeros(), 2, frames=1, workers=1, process_index=0, process_count=1)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    return False


@pytest.mark.processes
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes in /proc")
def test_workers_end_when_the_main_process_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        cwd=ROOT,
        env=children.environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    try:
        assert workers
        assert all(map(alive, workers))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for _ in range(300):
            if not any(map(alive, workers)):
                break
            time.sleep(0.1)
        assert not any(map(alive, workers))
    finally:
        process.kill()
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)
