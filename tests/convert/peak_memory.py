"""Run by test_memory.py: loads a checkpoint onto a mesh of CPU devices, in a process of its own.

Not a test file: peak memory is one number for the life of a process. Arguments: a folder of the
same kind but small (what the libraries need once), the folder, its copy. Prints one JSON object.
"""

import json
import pathlib
import re
import sys

import jax
import numpy as np
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.convert.folder import copy_folder, load_folder, save_folder
from sam_audio_jax.parallel import MeshConfig


def memory(kind: str) -> int:
    """Bytes of /proc/self/status: VmRSS is the use now, VmHWM the peak since the last reset."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{kind}:\s+(\d+) kB", status)[1])


def peak_of(work) -> tuple[int, object]:
    """Returns the peak above the use before, in bytes, and the result of `work`."""
    before = memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    result = work()
    return memory("VmHWM") - before, result


def main(small: str, folder: str, copy: str) -> None:
    mesh = parallel.make_mesh(MeshConfig())
    save_folder(f"{copy}.small", *load_folder(small, mesh=mesh))
    copying, _ = peak_of(lambda: copy_folder(folder, copy))
    loading, loaded = peak_of(lambda: load_folder(folder, mesh=mesh))
    codec, prompted, _, _ = loaded
    moved = 0
    for module in (codec, prompted.text_encoder, prompted.separator):
        state = nnx.split(module)[1]
        again = jax.device_put(nnx.as_pure(state), parallel.parameter_shardings(state, mesh))
        for old, new in zip(*map(jax.tree.leaves, (nnx.as_pure(state), again)), strict=True):
            pointers = [[s.data.unsafe_buffer_pointer() for s in a.addressable_shards]
                        for a in (old, new)]  # fmt: skip
            moved += pointers[0] != pointers[1]
    saving, _ = peak_of(lambda: save_folder(f"{copy}.saved", *loaded))
    kernel = prompted.separator.dit.blocks.mlp.up.kernel[...]
    print(
        json.dumps(
            {
                "loading": loading,
                "copying": copying,
                "saving": saving,
                "moved": moved,
                "shards": len({str(shard.index) for shard in kernel.addressable_shards}),
                "finite": bool(np.isfinite(np.asarray(kernel)).all()),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
