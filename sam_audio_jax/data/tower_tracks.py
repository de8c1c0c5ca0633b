"""Video features that `prepare` makes: those of a vision tower for the masked pictures.

A recording with a `video` and the `mask` of its object gets one vector for each latent frame of its
sound. They are made when a mixture first needs them and kept beside the shards, so that each is
made once, whatever is killed: `FOLDER/video/KEY.npy` has them (float16 `[parts, width]`) and
`KEY.sha256`, written after it, the checksum of that file. `KEY` stands for video, mask and length,
so that a file that has changed gets new ones. `FOLDER/video/refused.jsonl` has the videos that
cannot be used, which are counted and named; their recordings are mixed as if they had none.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax.codec.probe import probe_of
from sam_audio_jax.data.mix import Mixer
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.refusals import Refusal, Refusals
from sam_audio_jax.data.video_tracks import Lengths, VideoPaths, VideoTracks, read_features
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import append_jsonl, read_jsonl, sha256_of, whole_file, writing_to
from sam_audio_jax.infer.video_prompts import Clip
from sam_audio_jax.process_rank import ProcessRank

FOLDER, REFUSED = "video", "refused.jsonl"
PROBE_TIMES, PROBE_SIZE = 2, 32  # pictures by which a tower is recognised, and their pixels

log = logging.getLogger(__name__)

# The tower's vectors of a clip at some times, in seconds.
EncodeClip = Callable[[Clip, Float[np.ndarray, " times"]], Float[np.ndarray, "times width"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerTracks(VideoTracks):
    """Video features of recordings: files that a manifest names, else those of a tower."""

    recordings: Sequence[Recording]
    sample_rate: int
    encode: EncodeClip
    folder: pathlib.Path
    refusals: Refusals = dataclasses.field(default_factory=Refusals)
    refused: set[str] = dataclasses.field(default_factory=set)  # keys
    intact: set[str] = dataclasses.field(default_factory=set)  # keys of files that were checked

    def track(self, number: int) -> Float[np.ndarray, "parts width"] | None:
        recording = self.recordings[number]
        if recording.video is None or recording.video_features is not None:
            return super().track(number)
        key = _key(recording, self.lengths[number], self.sample_rate, self.hop)
        if key in self.refused:
            return None
        path = self.folder / f"{key}.npy"
        if not self._is_intact(key, path):
            try:
                features = self.encode(_clip_of(recording), self._times(number))
            except UserError as error:
                self._refuse(key, _reason(recording), f"{recording.id}: {error}")
                return None
            with whole_file(path) as part:
                np.save(part, features.astype(np.float16))
            with whole_file(path.with_suffix(".sha256")) as part:
                part.write_text(sha256_of(path))
            self.intact.add(key)
        return read_features(str(path))

    def _is_intact(self, key: str, path: pathlib.Path) -> bool:
        """Whether the features were made before, and their file is as it was written."""
        checksum = path.with_suffix(".sha256")
        if key in self.intact or not checksum.is_file():
            return key in self.intact
        if not path.is_file() or sha256_of(path) != checksum.read_text():
            log.warning("%s is damaged: its video is looked at again", path)
            return False
        self.intact.add(key)
        return True

    def _times(self, number: int) -> Float[np.ndarray, " times"]:
        """Where the equal parts of a recording begin, in seconds: latent frames, rounded up."""
        length = self.lengths[number]
        parts = -(-length // self.hop)
        return np.arange(parts) * (length / parts / self.sample_rate)

    def _refuse(self, key: str, reason: str, text: str) -> None:
        self.refused.add(key)
        self.refusals.add(Refusal(reason, text))
        append_jsonl(self.folder / REFUSED, [{"key": key, "reason": reason, "text": text}])


@contextlib.contextmanager
def open_tower_tracks(
    mixer: Mixer,
    sample_rate: int,
    hop: int,
    encode: EncodeClip,
    *,
    name: str,
    folder: str | os.PathLike,
    rank: ProcessRank | None = None,
) -> Iterator[TowerTracks]:
    """The features of a mixer's recordings by a tower, kept in the folder of a cache.

    `name` is that of the model with the tower. Raises `UserError` for a source without a video, and
    while another run writes to the folder.
    """
    table, rank = mixer.catalogue.table, rank or ProcessRank()
    if not any(one.video is not None for one in table.recordings):
        raise UserError(
            f"vision_checkpoint={name} is for recordings with a video and a mask, and the source "
            "has none with a video"
        )
    folder = pathlib.Path(folder) / FOLDER
    picture = np.random.default_rng(0).integers(0, 256, (1, PROBE_SIZE, PROBE_SIZE, 3), np.uint8)
    probe = encode(Clip(source=picture), np.arange(PROBE_TIMES, dtype=np.float64))
    with writing_to(folder, writer=rank.index, writers=rank.count):
        before = {line["key"]: line for line in read_jsonl(folder / REFUSED, skip_torn=True)}
        yield TowerTracks(
            paths=VideoPaths(table.recordings),
            lengths=Lengths(mixer.arranger.waves, table.recordings),
            width=probe.shape[1],
            hop=hop,
            name=name,
            probe=probe_of(probe[None] / np.sqrt(np.mean(np.square(probe)))),
            recordings=table.recordings,
            sample_rate=sample_rate,
            encode=encode,
            folder=folder,
            refusals=Refusals(Refusal(one["reason"], one["text"]) for one in before.values()),
            refused=set(before),
        )


def _clip_of(recording: Recording) -> Clip:
    """The masked video of a recording. Raises `UserError` for one without a mask."""
    if recording.mask is None:
        raise UserError(f"the video {recording.video} has no mask of the sounding object")
    return Clip(source=recording.video, mask=recording.mask, name=f"the video {recording.video}")


def _reason(recording: Recording) -> str:
    """The word by which a video that cannot be used is counted."""
    if recording.mask is None:
        return "video without mask"
    files = (recording.video, recording.mask)
    return "unusable video" if all(map(os.path.exists, filter(None, files))) else "no file"


def _key(recording: Recording, length: int, sample_rate: int, hop: int) -> str:
    """Stands for what the features of a recording depend on, but for the tower."""
    stamp = hashlib.sha256(f"{length}|{sample_rate}|{hop}".encode())
    for path in (recording.video, recording.mask):
        stamp.update(f"|{path}".encode("utf-8", "surrogateescape"))
        if path is not None and os.path.exists(path):
            status = os.stat(path)
            stamp.update(f"|{status.st_size}|{status.st_mtime_ns}".encode())
    return stamp.hexdigest()[:16]
