"""Masked video as a prompt: its frames at the times of the latents, and their features.

docs/model.md, "Video".
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.folder import TOWER_SIZES
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, released_config, vision_from_reference
from sam_audio_jax.encoders.clips import encode_clips
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.video.frames import Frames, latent_times, stream_at
from sam_audio_jax.video.masks import check_keep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A video and the mask of an object in it; every call of `frames` reads them anew."""

    source: Any  # a path, or uint8 `[frames, height, width, 3]` that span the recording
    mask: Any = None  # as `read_masks` reads; None: the video is masked already
    keep: str = "object"  # or background
    name: str = "the video"  # what errors call it
    track: int | None = None  # of the file's audio tracks, the one whose clock times are on

    @property
    def path(self) -> pathlib.Path | None:
        """The video file; None for frames in memory."""
        is_file = isinstance(self.source, str | os.PathLike)
        return pathlib.Path(self.source) if is_file else None

    def frames(self, count: int, codec: CodecConfig) -> Iterator[Frames]:
        """Yields the masked video frames of `count` latent frames, some at a time."""
        return self.at(latent_times(count, codec.hop, codec.sample_rate))

    def at(self, times: Float[np.ndarray, " times"]) -> Iterator[Frames]:
        """Yields the masked frames that are nearest to rising times, some at a time."""
        return stream_at(
            self.source, times, mask=self.mask, keep=self.keep, name=self.name, track=self.track
        )


def make_clip(
    video: Any,
    mask: Any = None,
    keep: str = "object",
    name: str = "audio",
    *,
    sound: Any = None,
    track: int | None = None,
) -> Clip | None:
    """Returns the clip that the arguments of a call describe; None if there is no video.

    `track` is that of `sound`, whose clock counts if both are one file. A `Clip` is returned as it
    is.
    """
    check_keep(keep, "mask_keeps")
    if isinstance(video, Clip) and mask is None:
        return video
    if video is None:
        if mask is not None:
            raise UserError(f"{name} has a mask but no video that it is of")
        return None
    clip = Clip(source=video, mask=mask, keep=keep, name=f"the video of {name}")
    if track is None or clip.path is None or not isinstance(sound, str | os.PathLike):
        return clip
    is_same = os.path.realpath(clip.path) == os.path.realpath(sound)
    return dataclasses.replace(clip, track=track) if is_same else clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTower:
    """A vision tower that is loaded on demand, and how the separator uses it."""

    load: Callable[[], VisionEncoder]
    image_size: int | None = None  # pixels; None: the tower's own size
    normalize: bool = True


def stored_tower(extra: Mapping[str, Any], mesh: Mesh | None = None) -> StoredTower | None:
    """Returns the tower in the extras of `load_networks`, None if there is none.

    A tower of another size than the released one has its config in the extras, under `TOWER_SIZES`.
    """
    state = extra.get("rest", {})
    if not any(name.startswith(SAM_AUDIO_PREFIX) for name in state):
        return None
    released, own = extra["upstream"]["vision_encoder"], extra.get(TOWER_SIZES)

    def load() -> VisionEncoder:
        config = from_dict(VisionConfig, own) if own else released_config(released)
        return vision_from_reference(state, config, SAM_AUDIO_PREFIX, mesh)

    return StoredTower(
        load=load,
        image_size=None if own else released["image_size"],
        normalize=released["normalize_feature"],
    )


class VideoFeatures:
    """Turns clips into features; the tower is loaded for the first of them."""

    def __init__(
        self,
        vision: VisionEncoder | StoredTower | None,
        codec: CodecConfig,
        width: int,
        mesh: Mesh | None = None,
        *,
        trained: bool = True,
    ):
        """`trained` says whether the separator reads videos at all."""
        self.trained = trained
        if isinstance(vision, VisionEncoder):
            vision = StoredTower(load=lambda tower=vision: tower)
        self.vision, self.codec, self.width, self.mesh = vision, codec, width, mesh

    def require(self) -> StoredTower:
        """Returns the tower, which is not loaded yet.

        Raises UserError if there is none, and if the separator would ignore its features.
        """
        if self.vision is None:
            raise UserError("this model has no vision tower: it cannot be prompted by video")
        self._require_trained()
        return self.vision

    def _require_trained(self) -> None:
        if not self.trained:
            raise UserError(
                "this model was never trained on videos (the gate of its video branch is 0): it "
                "cannot be prompted by video"
            )

    @functools.cached_property
    def tower(self) -> VisionEncoder:
        tower = self.require().load()
        if tower.config.output != self.width:
            raise UserError(
                f"the vision tower makes {tower.config.output} features of a frame, "
                f"the separator takes {self.width}"
            )
        return tower

    def __call__(self, clip: Clip, count: int) -> Float[np.ndarray, "frames video_width"]:
        """Returns one vector for each of `count` latent frames.

        Raises UserError if there is no tower, or if the video or its mask cannot be read or do not
        fit each other.
        """
        return self.at(clip, latent_times(count, self.codec.hop, self.codec.sample_rate))

    def at(
        self, clip: Clip, times: Float[np.ndarray, " times"]
    ) -> Float[np.ndarray, "times video_width"]:
        """Returns one vector for each of rising times, in seconds; raises as a call."""
        stored = self.require()
        (features,) = encode_clips(
            self.tower,
            [clip.at(times)],
            size=stored.image_size,
            normalize=stored.normalize,
            mesh=self.mesh,
        )
        return features

    def of_batch(
        self,
        clips: Sequence[Clip | None] | None,
        features: Sequence[Any] | None,
        sizes: Sequence[int],
        frames: int,
    ) -> list[Float[np.ndarray, "_ video_width"] | None] | None:
        """Returns features of a batch's videos, `sizes` frames of each, or checks `features`."""
        if features is not None:
            return [
                None if one is None else self.check(one, frames, f"item {number}")
                for number, one in enumerate(features)
            ]
        if clips is None:
            return None
        pairs = zip(clips, sizes, strict=True)
        return [None if clip is None else self(clip, size) for clip, size in pairs]

    def check(
        self, features: Any, count: int, name: str
    ) -> Float[np.ndarray, "frames video_width"]:
        """Returns a caller's features as float32.

        Raises UserError if they do not fit `count`, and if the separator would ignore them.
        """
        self._require_trained()
        features = np.asarray(features)
        if features.shape != (count, self.width) or features.dtype.kind != "f":
            raise UserError(
                f"video_features of {name} are {features.dtype} of shape {features.shape}; needed "
                f"are floats of shape {(count, self.width)} (latent frames, width)"
            )
        return features.astype(np.float32)
