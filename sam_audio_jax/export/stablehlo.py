"""Programs serialised by `jax.export`: StableHLO for several platforms, with open sizes.

Weights are inputs, a dictionary of arrays by name, so that a program is small and they are in one
file only.
"""

import importlib.util
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from jax import export

from sam_audio_jax.errors import UserError
from sam_audio_jax.export.networks import ExportedProgram

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIX = ".bin"


def require() -> None:
    """Raises `UserError` without the package that serialises."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("--format stablehlo needs flatbuffers: pip install 'sam-audio-jax[export]'")


def write(program: ExportedProgram, path: pathlib.Path) -> None:
    """Writes a program for all platforms."""
    most = program.most_frames
    scope = export.SymbolicScope([] if most is None else [f"frames <= {most}"])
    inputs = {
        one.name: jax.ShapeDtypeStruct(
            export.symbolic_shape(", ".join(map(str, one.shape)), scope=scope), one.dtype
        )
        for one in program.inputs
    }
    weights = {k: jax.ShapeDtypeStruct(w.shape, w.dtype) for k, w in program.weights.items()}
    exported = export.export(jax.jit(program.of_weights), platforms=PLATFORMS)(weights, inputs)
    path.write_bytes(exported.serialize())


def run(
    program: ExportedProgram, path: pathlib.Path, inputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """What a written program gives for the network's weights, on this machine."""
    exported = export.deserialize(bytearray(path.read_bytes()))
    return np.asarray(jax.jit(exported.call)(program.weights, dict(inputs)))
