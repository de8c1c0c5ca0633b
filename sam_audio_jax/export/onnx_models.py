"""Programs as ONNX by jax2onnx, an extra; run by onnxruntime to check them."""

import importlib
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from sam_audio_jax.errors import UserError
from sam_audio_jax.export.networks import ExportedProgram

SUFFIX = ".onnx"
NEEDED = ("jax2onnx", "onnx", "onnxruntime")


def require() -> None:
    """Raises `UserError` without the converter and the runtime that checks."""
    # Examples among the converter's plugins need more packages, which it reports at length; so does
    # the writer about sizes inside of loops, which have no name.
    for noisy in ("jax2onnx", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"--format onnx needs {error.name}: pip install 'sam-audio-jax[onnx]', then "
                "pip install --no-deps jax2onnx (docs/export.md)"
            ) from None


def write(program: ExportedProgram, path: pathlib.Path, fixed: Mapping[str, int]) -> None:
    """Writes a program with its weights, those above a MB in a file beside it.

    Open sizes that are in `fixed` are not left open.
    """
    scope = export.SymbolicScope()
    shapes = [
        export.symbolic_shape(", ".join(map(str, one.with_sizes(fixed))), scope=scope)
        for one in program.inputs
    ]
    inputs = [
        jax.ShapeDtypeStruct(shape, one.dtype)
        for shape, one in zip(shapes, program.inputs, strict=True)
    ]
    call: Callable[..., Any] = lambda *arrays: program.call(program.network, *arrays)  # noqa: E731
    if program.traced_first:
        call = _traced(call, inputs)
    importlib.import_module("jax2onnx").to_onnx(
        call,
        inputs,
        model_name=program.name,
        return_mode="file",
        output_path=str(path),
        input_names=[one.name for one in program.inputs],
        output_names=[program.output.name],
    )


def _traced(call: Callable[..., Any], inputs: list[jax.ShapeDtypeStruct]) -> Callable[..., Any]:
    """The call as its jaxpr: the converter reads primitives only.

    It replaces functions of jax.numpy while it traces, and its `arange` and `mean` cannot do what
    transformers need of them.
    """
    run = core.jaxpr_as_fun(jax.make_jaxpr(call)(*inputs))
    return lambda *arrays: run(*arrays)[0]


def run(path: pathlib.Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What onnxruntime gives on a CPU."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))[0]
