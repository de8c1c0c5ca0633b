"""Writes the networks of a model as programs that run without this package.

Codec encoder, codec decoder, text encoder and one evaluation of the velocity, with export.json,
which says what goes in and comes out (docs/export.md has a program that separates with them).
stablehlo: by jax.export, for CPUs, CUDA GPUs and TPUs, any number of items, frames and tokens; the
weights are in one safetensors file. onnx: by jax2onnx, the weights in the models; the velocity has
one item and the length of --seconds and --tokens. Each program is compared with the model on random
inputs; one that differs by more than 1e-4 ends the command.
"""

import argparse
import functools
import sys
from typing import get_args

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, check_to_make, command
from sam_audio_jax.errors import UserError
from sam_audio_jax.export.exported_folder import Form, export_model
from sam_audio_jax.infer.inputs import check_checkpoint

SECONDS, TOKENS = 10.0, 32  # of a velocity in ONNX


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="export")
    parser.add_argument("model", help="shipped name, workdir or step, folder, Hugging Face id")
    parser.add_argument("--format", required=True, choices=get_args(Form))
    parser.add_argument(
        "--out",
        type=config.local_folder,
        required=True,
        help="folder to make; must not exist or be empty",
    )
    parser.add_argument(
        "--seconds", type=float, help=f"of sound in a velocity of onnx; default: {SECONDS:g}"
    )
    parser.add_argument(
        "--tokens", type=at_least(1), help=f"of the text in a velocity of onnx; default: {TOKENS}"
    )
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Exports one model."""
    options = read_options(argv)
    seconds = SECONDS if options.seconds is None else options.seconds
    for name in ("seconds", "tokens"):
        if options.format != "onnx" and getattr(options, name) is not None:
            raise UserError(f"--{name} has no effect on {options.format}, whose sizes are open")
    if not 0 < seconds < float("inf"):
        raise UserError(f"--seconds {seconds} must be above 0")
    check_to_make(options.out, "--out")
    export_model(
        check_checkpoint(options.model),
        options.out,
        options.format,
        seconds=seconds,
        tokens=options.tokens or TOKENS,
        report=functools.partial(print, file=sys.stderr),
    )
