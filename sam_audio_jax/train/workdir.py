"""A workdir belongs to one experiment: its config is written once and compared on every start."""

import json
import pathlib
from typing import Any

import jax
from jax.experimental import multihost_utils

from sam_audio_jax.config import differences, to_dict
from sam_audio_jax.errors import UserError


def claim_workdir(workdir: pathlib.Path, config: Any) -> None:
    """Makes the folder and its config.json, or checks that they are of the same experiment.

    Raises `UserError` with the differing fields, or for a folder that holds something else.
    """
    file = workdir / "config.json"
    kind = type(config).__name__
    if file.is_file():
        saved = read_config(workdir)
        if saved["experiment"] != kind:
            raise UserError(f"{workdir} belongs to a {saved['experiment']}, not to a {kind}")
        differing = differences(saved["config"], config)
        if differing:
            raise UserError(
                f"{workdir} belongs to another config ({'; '.join(differing)}); "
                "take another --workdir or the saved values"
            )
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"{workdir} is not empty and holds no config.json of a run")
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps({"experiment": kind, "config": to_dict(config)}, indent=1))
        partial.replace(file)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("workdir claimed")


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """`{"experiment": class name, "config": fields}` of a run."""
    try:
        return json.loads((workdir / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is not the workdir of a run: {error}") from None
