"""Whether the files of a manifest's items have changed: their sizes and times."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

from sam_audio_jax.infer.batch.lengths import READERS, file_stamp
from sam_audio_jax.infer.manifest import FILES, Entry

FileStamp = Mapping[str, str]  # key of the line, such as "audio" -> size and modification time


def find_stamps(entries: Sequence[Entry]) -> dict[str, FileStamp]:
    """Returns the stamp of each entry by its id; files that cannot be found are not in it."""
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        return dict(zip([entry.id for entry in entries], pool.map(_stamp, entries), strict=True))


def has_changed(then: FileStamp | None, now: FileStamp) -> bool:
    """Whether a file is another one; None: of a record that is older than stamps.

    Of a file that is gone nobody knows: its results stay.
    """
    return then is not None and any(then.get(key, value) != value for key, value in now.items())


def _stamp(entry: Entry) -> FileStamp:
    paths = {key: getattr(entry, key) for key in FILES}
    stamps = {key: _stamp_of(path) for key, path in paths.items() if path is not None}
    return {key: stamp for key, stamp in stamps.items() if stamp}


def _stamp_of(path: pathlib.Path) -> str:
    """Of a folder of pictures: their number, and a sum over their names, sizes and times.

    Those of the folder itself stay where a picture in it is written again.
    """
    try:
        if not path.is_dir():
            return file_stamp(path)
        files = sorted(file for file in path.iterdir() if file.is_file())
        lines = "\n".join(f"{file.name} {file_stamp(file)}" for file in files)
        return f"{len(files)} {hashlib.sha256(os.fsencode(lines)).hexdigest()[:16]}"
    except OSError:
        return ""
