"""By what an evaluation that goes on knows that recordings and masks are those it has measured."""

import pathlib
from typing import Any

from sam_audio_jax.data.encoded_sounds import stamp_of


def file_stamps(*paths: pathlib.Path) -> list[list[Any]]:
    """JSON of each file, of a folder with all in it: where it is, its size, when it was changed.

    Of what is not there or cannot be looked at only the place is known.
    """
    stamps: list[list[Any]] = []
    for path in paths:
        place = path.absolute()
        try:
            place = path.resolve()
            inside = sorted(place.iterdir()) if place.is_dir() else []
            stamps += [[str(file), *stamp_of(str(file))] for file in (place, *inside)]
        except OSError:  # an error where it is opened
            stamps.append([str(place)])
    return stamps
