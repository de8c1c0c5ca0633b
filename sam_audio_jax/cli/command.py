"""What the commands share: how an error looks, the exit status, numbers with a lower limit.

And the options of those that run a trained network on several devices or hosts: `--mesh.AXIS N`
lays the network out on the devices of a process; `--process I --processes N` says which share of
the work a process has. Such processes never wait for each other.
"""

import argparse
import functools
import io
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from sam_audio_jax import distributed
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import check_new_folder, check_writable, name_writer, place_error
from sam_audio_jax.nn.storage import STORAGES
from sam_audio_jax.parallel import MESH_AXES, MeshConfig, inference_mesh
from sam_audio_jax.process_rank import ProcessRank, rank_from_environment

INTERRUPTED = 130  # the exit status of shells for a program that Ctrl-C ended


def command(body: Callable[[list[str]], int | None]) -> Callable[[Sequence[str]], int]:
    """Turns a function that may raise `UserError` into `main(argv)`, which returns an exit status.

    A `UserError` becomes one line on stderr and status 2, and so does an error of the place that
    something is written to, as a full disk; Ctrl-C becomes one line and status 130; None becomes 0.
    A process of a run of several ends at once after an error, so that the others notice
    (`distributed.run_main`).
    """

    def run(argv: list[str]) -> int:
        try:
            return body(argv) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Exception as error:
            if not (reason := place_error(error)):
                raise
            print(f"error: cannot write: {reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            if jax.distributed.is_initialized():  # `run_main` says so, for all processes alike
                raise
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    @functools.wraps(body)
    def main(argv: Sequence[str]) -> int:
        for stream in (sys.stdout, sys.stderr):  # names of files need not be in their encoding
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return distributed.run_main(run, list(argv))

    return main


def at_least(minimum: int) -> Callable[[str], int]:
    """Returns an argparse type: a whole number that is `minimum` or more."""

    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} must be {minimum} or more")
        return value

    parse.__name__ = "int"  # argparse names the type in its message about other texts
    return parse


def check_to_make(folder: pathlib.Path, option: str) -> None:
    """Raises `UserError` for a folder that has something in it, and for one that cannot be made."""
    check_new_folder(folder, option)
    check_writable(folder, option)


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--mesh.data`, `--mesh.fsdp`, `--mesh.tensor` and `--mesh.sequence`."""
    group = parser.add_argument_group(
        "devices of this process",
        "By default copies of the network on all of them, or, where they do not fit, parts of one.",
    )
    for name in MESH_AXES:
        group.add_argument(
            f"--mesh.{name}", type=int, metavar="N", help="devices along this axis; -1: the rest"
        )


def mesh_of(args: argparse.Namespace, weight_bytes: Callable[[], int]) -> Mesh | None:
    """The mesh that the options describe, else the default one for weights of this size.

    Raises `UserError` for sizes that do not multiply to the number of devices.
    """
    named = {name: getattr(args, f"mesh.{name}") for name in MESH_AXES}
    named = {name: size for name, size in named.items() if size is not None}
    if not named:
        return inference_mesh(None, weight_bytes)
    # What is not named is 1, but for the copies, which take the devices that are left.
    sizes = dict.fromkeys(MESH_AXES, 1) | ({} if -1 in named.values() else {"data": -1}) | named
    return inference_mesh(MeshConfig(**sizes), weight_bytes)


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--processes` and `--process`."""
    parser.add_argument(
        "--processes", type=at_least(1), help="that share the work; default: by the environment"
    )
    parser.add_argument("--process", type=at_least(0), help="which of them this one is, from 0")


def process_rank(args: argparse.Namespace) -> ProcessRank:
    """Returns the rank by the options, else by the environment; what is written then bears it.

    Raises UserError for one of the two options without the other.
    """
    if (args.process is None) != (args.processes is None):
        raise UserError("--process and --processes go together")
    if args.processes is None:
        rank = rank_from_environment(os.environ)
    else:
        rank = ProcessRank(args.process, args.processes)
    name_writer(rank.index)
    return rank


def add_adapter_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--adapter`."""
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="DIR[:SCALE]",
        help="added to the model's weights, as docs/finetuning.md says; may be repeated",
    )


def add_dtype_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--dtype`."""
    parser.add_argument(
        "--dtype",
        choices=STORAGES,
        default="float32",
        help="in which the matrices are kept: less memory, docs/inference.md; default: float32",
    )


def add_ranker_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--ranker`."""
    parser.add_argument(
        "--ranker",
        action="append",
        default=[],
        metavar="KIND=PATH",
        help="judge, clap or imagebind, which rank candidates; default: those of the checkpoint",
    )


def ranker_paths(args: argparse.Namespace) -> dict[str, str]:
    """Returns the paths of `--ranker` by kind; raises UserError for another form, or two of one."""
    pairs = [text.partition("=") for text in args.ranker]
    for text, (kind, _, path) in zip(args.ranker, pairs, strict=True):
        if not kind or not path:
            raise UserError(f"--ranker {shown(text)} must be like judge=FOLDER")
        if [other for other, *_ in pairs].count(kind) > 1:
            raise UserError(f"--ranker {kind}=... is there twice: give each kind once")
    return {kind: path for kind, _, path in pairs}
