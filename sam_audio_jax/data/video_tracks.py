"""Video features of recordings, laid out in time as their sound is laid out in a mixture.

A recording may have features of its video, one vector for each of equal parts of its length: a
NumPy file `[parts, width]` that its manifest names as `video_features`. They are what the vision
tower gives for pictures of the sounding object (`infer/video_prompts.py`). For recordings with a
masked video `prepare` makes them itself (`tower_tracks.py`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float16

from sam_audio_jax.data.arrange import Placement
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.recording_table import VIDEO, RecordingTable
from sam_audio_jax.data.waves import WaveReader
from sam_audio_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class VideoTracks:
    """The features of all recordings that have any; picklable, files are opened when read."""

    paths: Sequence[str | None]  # of each recording
    lengths: Sequence[int]  # samples of each recording
    width: int
    hop: int  # samples of a latent frame
    name: str = ""  # of the tower that makes them; empty: they are files that manifests name
    probe: tuple[float, ...] = ()  # what that tower gives for a fixed picture

    def track(self, number: int) -> Float[np.ndarray, "parts width"] | None:
        """The vectors of a recording; None if it has no features."""
        path = self.paths[number]
        if path is None:
            return None
        track = read_features(path)
        if track.shape[1] != self.width:
            raise UserError(
                f"video features {path} have {track.shape[1]} numbers, not {self.width}"
            )
        return track

    def frames(
        self, places: Sequence[Placement], count: int
    ) -> Float16[np.ndarray, "frames width"]:
        """One vector for each of `count` latent frames, that of its beginning.

        Zeros, which stand for no video, where no recording with features is placed.
        """
        features = np.zeros((count, self.width), np.float16)
        begins = np.arange(count) * self.hop
        for place in places:
            track = self.track(place.number)
            if track is None:
                continue
            shown = (begins >= place.offset) & (begins < place.offset + place.samples)
            source = place.start + (begins[shown] - place.offset) * place.speed
            rows = (source * len(track) / self.lengths[place.number]).astype(np.int64)
            features[shown] = track[np.minimum(rows, len(track) - 1)]
        return features


class VideoPaths(Sequence):
    """The files of video features of all recordings, looked up one by one."""

    def __init__(self, recordings: Sequence[Recording]):
        self.recordings = recordings

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, number: Any) -> str | None:
        return self.recordings[number].video_features


class Lengths(Sequence):
    """The samples of all recordings, looked up one by one."""

    def __init__(self, waves: WaveReader, recordings: Sequence[Recording]):
        self.waves, self.recordings = waves, recordings

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, number: Any) -> int:
        return self.waves.length(number)


def open_video_tracks(table: RecordingTable, waves: WaveReader, hop: int) -> VideoTracks | None:
    """The features of the recordings of a table; None if none of them has any.

    Raises `UserError` for a file that holds no vectors and for features of several widths; of a
    table on disk only the first file is looked at now.
    """
    numbers = table.numbers(VIDEO)
    some = numbers[:1] if table.folder else numbers
    paths = [table.recordings[int(number)].video_features for number in some]
    path_of = {read_features(path).shape[1]: path for path in paths if path is not None}
    if not path_of:
        return None
    if len(path_of) > 1:
        found = ", ".join(f"{path} has {width}" for width, path in path_of.items())
        raise UserError(f"video features must have one width: {found}")
    lengths = Lengths(waves, table.recordings)
    return VideoTracks(VideoPaths(table.recordings), lengths, next(iter(path_of)), hop)


@functools.lru_cache(maxsize=256)
def read_features(path: str) -> Float[np.ndarray, "parts width"]:
    """The vectors of one file, which stay on disk. Raises `UserError` for anything else."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"video features {path} cannot be read: {error}") from None
    if features.ndim != 2 or not features.size or features.dtype.kind != "f":
        raise UserError(
            f"video features {path} are {features.dtype} of shape {features.shape}; needed are "
            "floats of shape (parts, width)"
        )
    return features
