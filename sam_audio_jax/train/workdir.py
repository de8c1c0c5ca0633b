"""A workdir belongs to one experiment, from its first checkpoint on; every start checks that."""

import json
import pathlib
from typing import Any

from sam_audio_jax import distributed
from sam_audio_jax.config import differences, to_dict
from sam_audio_jax.convert.workdir import saved_steps
from sam_audio_jax.errors import UserError


def check_workdir(workdir: pathlib.Path, config: Any) -> None:
    """Raises `UserError`, with the differing fields, for the workdir of another experiment.

    Before its first checkpoint a workdir takes any config. Process 0 looks, for all.
    """
    distributed.run_on_first(lambda: _check(workdir, config))


def _check(workdir: pathlib.Path, config: Any) -> None:
    if not (workdir / "config.json").is_file():
        if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
            raise UserError(f"{workdir} is not empty and holds no config.json of a run")
        return
    if not saved_steps(workdir):
        return
    saved = read_config(workdir)
    kind = type(config).__name__
    if saved["experiment"] != kind:
        raise UserError(f"{workdir} belongs to a {saved['experiment']}, not to a {kind}")
    differing = differences(saved["config"], config)
    if differing:
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(differing)}); "
            "take another --workdir or the saved values"
        )


def claim_workdir(workdir: pathlib.Path, config: Any) -> None:
    """Process 0 checks the workdir, makes it if absent, and writes the config into it."""
    distributed.run_on_first(lambda: _claim(workdir, config))


def _claim(workdir: pathlib.Path, config: Any) -> None:
    _check(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / "config.json"
    partial = file.with_suffix(".partial")
    run = {"experiment": type(config).__name__, "config": to_dict(config)}
    partial.write_text(json.dumps(run, indent=1))
    partial.replace(file)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """`{"experiment": class name, "config": fields}` of a run."""
    try:
        return json.loads((workdir / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is not the workdir of a run: {error}") from None
