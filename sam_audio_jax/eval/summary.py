"""The means of an evaluation in a few lines for a terminal."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.statistics import ALL, counted
from sam_audio_jax.files import read_json

# Columns of networks that the terminal shows, by setting.
SHOWN = {"judge_overall": "judge", "clap": "CLAP", "imagebind": "ImageBind"}


def summary(results: str | pathlib.Path) -> str:
    """The main means of `results.json`, with their intervals and numbers of items.

    That is the SI-SDR improvement of the target over all settings, for each row, where stems are
    known, the scores of networks for each setting and prompt, and how many items are in no number.
    Raises `UserError` if the file is missing or holds no such table.
    """
    try:
        read = read_json(results)
        cells, scorers = read["table"], read.get("settings", {}).get("scorers", {})
        missing, listed = len(read.get("missing", ())), sum(read.get("mixtures", {}).values())
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{results} holds no results of an evaluation: {error}") from error
    known = [cell for cell in cells if (cell["setting"], cell["column"]) == (ALL, "sisdri")]
    lines = []
    if not cells:
        lines.append("No score was measured: no stems are known, and --scorers names no network.")
    if known:
        lines.append("SI-SDR improvement of the target over the mixture, mean and 95 % interval:")
    for cell in known:
        row = cell["row"].removeprefix("model/")
        span = _bounds(cell, "{:+.1f}")
        mixtures = counted(cell["n"], "mixture")
        lines.append(f"  {row:<18} {cell['mean']:+6.1f} dB {span:<17} {mixtures}")
    if silent := read.get("silent"):
        lines.append(
            f"  of these scores {len(silent)} are of digital silence: the report says which."
        )
    if scored := [cell for cell in cells if cell["column"] in SHOWN]:
        lines.append("Scores of the target by networks, mean and 95 % interval:")
        lines += [f"  {name}: {described}" for name, described in scorers.items()]
        lines += map(_scored, scored)
    if missing:
        lines.append(f"{missing} of {listed} items are in no number: the report lists them.")
    return "\n".join(lines)


def _scored(cell: Mapping[str, Any]) -> str:
    row = cell["row"].removeprefix("model/").removeprefix("none/")
    span = _bounds(cell, "{:.2f}")
    name, items = f"{cell['setting']}, {row}", counted(cell["n"], "item")
    return f"  {name:<28} {SHOWN[cell['column']]:<9} {cell['mean']:6.2f} {span:<16} {items}"


def _bounds(cell: Mapping[str, Any], form: str) -> str:
    """The interval of a cell in brackets; that of one item is empty."""
    low, high = (form.format(cell[end]) for end in ("low", "high"))
    return f"({low} to {high})" if cell["n"] > 1 else ""
