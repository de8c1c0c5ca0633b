"""The means of an evaluation in a few lines for a terminal."""

import pathlib

from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_json


def summary(results: str | pathlib.Path) -> str:
    """Mean SI-SDR improvement of the target over all settings, for each row of `results.json`.

    Raises `UserError` if the file is missing or holds no such table.
    """
    try:
        cells = read_json(results)["table"]
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{results} holds no results of an evaluation: {error}") from error
    lines = ["SI-SDR improvement of the target over the mixture, mean and 95 % interval:"]
    for cell in cells:
        if (cell["setting"], cell["column"]) == ("all", "sisdri"):
            row = cell["row"].removeprefix("model/")
            span = f"({cell['low']:+.1f} to {cell['high']:+.1f})"
            lines.append(f"  {row:<18} {cell['mean']:+6.1f} dB {span:<17} {cell['n']} mixtures")
    return "\n".join(lines)
