"""Masked video as a prompt: the frames that the tower sees, and what it makes of them.

spec/model.md, section 8.
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
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, released_config, vision_from_reference
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder, encode_clips
from sam_audio_jax.errors import UserError
from sam_audio_jax.video import KEEP, Frames, latent_times, stream_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A video and what is masked in it; its frames are read anew whenever somebody looks."""

    source: Any  # a path, or uint8 `[frames, height, width, 3]` that span the recording
    mask: Any = None  # as `video.read_mask` reads; None: the video is masked already
    keep: str = "object"  # or background
    name: str = "the video"  # what errors call it

    @property
    def path(self) -> pathlib.Path | None:
        """Of a video file."""
        is_file = isinstance(self.source, str | os.PathLike)
        return pathlib.Path(self.source) if is_file else None

    def frames(self, count: int, codec: CodecConfig) -> Iterator[Frames]:
        """The masked frame of each of `count` latent frames, in pieces."""
        times = latent_times(count, codec.hop, codec.sample_rate)
        return stream_at(self.source, times, mask=self.mask, keep=self.keep, name=self.name)


def make_clip(
    video: Any, mask: Any = None, keeps: str = "object", name: str = "audio"
) -> Clip | None:
    """The clip that the arguments of a call mean; None if there is no video."""
    if keeps not in KEEP:
        raise UserError(f"mask_keeps={keeps!r} is unknown; allowed: {', '.join(KEEP)}")
    if video is None:
        if mask is not None:
            raise UserError(f"{name} has a mask but no video that it is of")
        return None
    return Clip(source=video, mask=mask, keep=keeps, name=f"the video of {name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTower:
    """A vision tower that still lies in its file, and how its model uses it."""

    load: Callable[[], VisionEncoder]
    image_size: int | None = None  # pixels; None: the tower's own
    normalize: bool = True


def stored_tower(extra: Mapping[str, Any], mesh: Mesh | None = None) -> StoredTower | None:
    """The tower among what `load_networks` found beside the networks, if there is one.

    A tower of another size than the released one has its config in our extras, under "vision".
    """
    state = extra.get("rest", {})
    if not any(name.startswith(SAM_AUDIO_PREFIX) for name in state):
        return None
    settings, own = extra["upstream"]["vision_encoder"], extra.get("vision")

    def load() -> VisionEncoder:
        config = from_dict(VisionConfig, own) if own else released_config(settings)
        return vision_from_reference(state, config, SAM_AUDIO_PREFIX, mesh)

    return StoredTower(
        load=load,
        image_size=None if own else settings["image_size"],
        normalize=settings["normalize_feature"],
    )


class VideoFeatures:
    """Turns clips into features; the tower is loaded when the first one comes."""

    def __init__(
        self,
        vision: VisionEncoder | StoredTower | None,
        codec: CodecConfig,
        width: int,
        mesh: Mesh | None = None,
    ):
        if isinstance(vision, VisionEncoder):
            vision = StoredTower(load=lambda tower=vision: tower)
        self.vision, self.codec, self.width, self.mesh = vision, codec, width, mesh

    def require(self) -> StoredTower:
        """The tower, not read yet; UserError if there is none."""
        if self.vision is None:
            raise UserError("this model has no vision tower: it cannot be prompted by video")
        return self.vision

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
        """One vector for each of `count` latent frames.

        UserError: no tower, a video or mask that cannot be read, or that do not fit each other.
        """
        how = self.require()
        (features,) = encode_clips(
            self.tower,
            [clip.frames(count, self.codec)],
            size=how.image_size,
            normalize=how.normalize,
            mesh=self.mesh,
        )
        return features

    def batch_sharding(
        self,
        clips: Sequence[Clip | None] | None,
        given: Sequence[Any] | None,
        sizes: Sequence[int],
        frames: int,
    ) -> list[Float[np.ndarray, "_ video_width"] | None] | None:
        """Features of a batch's videos, `sizes` frames of each, or those that were handed in."""
        if given is not None:
            return [
                None if one is None else self.check(one, frames, f"item {number}")
                for number, one in enumerate(given)
            ]
        if clips is None:
            return None
        pairs = zip(clips, sizes, strict=True)
        return [None if clip is None else self(clip, size) for clip, size in pairs]

    def check(
        self, features: Any, count: int, name: str
    ) -> Float[np.ndarray, "frames video_width"]:
        """Features that were handed in for `count` latent frames."""
        features = np.asarray(features)
        if features.shape != (count, self.width) or features.dtype.kind != "f":
            raise UserError(
                f"video_features of {name} are {features.dtype} of shape {features.shape}; needed "
                f"are floats of shape {(count, self.width)} (latent frames, width)"
            )
        return features.astype(np.float32)
