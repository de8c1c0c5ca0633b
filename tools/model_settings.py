"""The option by which a tool writes what it found into the settings of a model folder."""

import argparse
import pathlib
from typing import Any

from sam_audio_jax.convert.folder import OURS
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object, write_json


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--write`."""
    parser.add_argument("--write", action="store_true", help="save the result in the model folder")


def check_write_option(options: argparse.Namespace) -> None:
    """Raises `UserError` for `--write` where `options.model` is no folder with settings."""
    if options.write and not (pathlib.Path(options.model) / OURS).is_file():
        raise UserError(f"--write needs a model folder with {OURS}, not {options.model}")


def write_setting(options: argparse.Namespace, name: str, value: Any) -> None:
    """Writes one setting, if `--write` is given."""
    if options.write:
        file = pathlib.Path(options.model) / OURS
        write_json(file, read_object(file) | {name: value})
