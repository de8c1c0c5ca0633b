"""By what an evaluation that goes on knows that recordings and masks are those it has measured.

`contents_of` is for files that another path may name: networks, lists of mixtures.
"""

import functools
import hashlib
import pathlib
from typing import Any

from sam_audio_jax.convert.model_files import shipped_folder
from sam_audio_jax.data.encoded_sounds import stamp_of
from sam_audio_jax.files import sha256_of


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


def contents_of(path: str) -> str:
    """Distinguishes what is in a file, a folder or a shipped network.

    Where it is does not count. "" for a name on the hub, and for "".
    """
    if not path:  # which as a path is the working folder
        return ""
    place = shipped_folder(path) or pathlib.Path(path)
    if place.is_file():
        return sha256_now(str(place))[:16]
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(place)} {sha256_now(str(file))}\n".encode())
    return digest.hexdigest()[:16] if files else ""


def sha256_now(path: str) -> str:
    """The SHA-256 of a file, which is read again only when its stamp has changed."""
    return _sha256(path, *stamp_of(path))


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, *stamp: int) -> str:
    del stamp
    return sha256_of(path)
