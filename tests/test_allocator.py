"""Memory that a training process keeps."""

import pathlib
import platform
import subprocess
import sys

import pytest

from tests.children import environment

BLOCKS = """
import ctypes, pathlib
from sam_audio_jax.allocator import keep_freed_memory

keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

before = resident()
block = libc.malloc(1 << 28)
ctypes.memset(block, 1, 1 << 28)
libc.free(block)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
@pytest.mark.parametrize(
    ("setting", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "1"}, False)]
)
def test_a_freed_block_stays_unless_the_environment_says_otherwise(setting, kept):
    run = subprocess.run(
        [sys.executable, "-c", BLOCKS],
        env=environment() | setting,
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(run.stdout) > 1 << 27) == kept
