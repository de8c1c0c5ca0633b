"""One encoded mixture, and its form as bytes in a shard of a latent cache."""

import dataclasses
from typing import Any, cast

import msgpack
import numpy as np
from jaxtyping import Bool, Float16

SIGNALS = ("mixture", "target", "residual")
VIDEO = ("target_video", "residual_video")
FEATURES = {"target_features": "target_heard", "residual_features": "residual_heard"}  # format 1


@dataclasses.dataclass(frozen=True)
class Record:
    """One encoded mixture; frames cover whole hops."""

    mixture: Float16[np.ndarray, "frames channels"]
    target: Float16[np.ndarray, "frames channels"]
    residual: Float16[np.ndarray, "frames channels"]
    target_texts: tuple[str, ...]
    residual_texts: tuple[str, ...]  # empty: the residual cannot be a target
    target_active: Bool[np.ndarray, " frames"]
    residual_active: Bool[np.ndarray, " frames"]
    category: str
    # Features of the teacher; None: made without one, or the residual cannot be a target.
    target_features: Float16[np.ndarray, "segments width"] | None = None
    residual_features: Float16[np.ndarray, "segments width"] | None = None
    # Features of the video of the source, zeros where nothing is seen; None: it has no video.
    target_video: Float16[np.ndarray, "frames video_width"] | None = None
    residual_video: Float16[np.ndarray, "frames video_width"] | None = None
    # Every phrase that is true of the target, and of any sound of the residual; empty: unknown, of
    # formats 1 to 3.
    target_claims: tuple[str, ...] = ()
    residual_claims: tuple[str, ...] = ()


def pack(record: Record) -> bytes:
    """Returns a record as bytes (msgpack)."""
    fields: dict[str, Any] = {name: getattr(record, name).tobytes() for name in SIGNALS}
    fields |= {
        "channels": record.mixture.shape[-1],
        "target_texts": record.target_texts,
        "residual_texts": record.residual_texts,
        "target_active": np.packbits(record.target_active).tobytes(),
        "residual_active": np.packbits(record.residual_active).tobytes(),
        "category": record.category,
        "target_claims": record.target_claims,
        "residual_claims": record.residual_claims,
    }
    for name in FEATURES:
        if (features := getattr(record, name)) is not None:
            fields |= {name: features.tobytes(), "width": features.shape[-1]}
    for name in VIDEO:
        if (video := getattr(record, name)) is not None:
            fields |= {name: video.tobytes(), "video_width": video.shape[-1]}
    return cast(bytes, msgpack.packb(fields))


def unpack(data: bytes) -> Record:
    """Returns the record that `pack` made bytes of, in any format; its arrays are read-only."""
    fields = msgpack.unpackb(data)
    latents = {
        name: np.frombuffer(fields[name], np.float16).reshape(-1, fields["channels"])
        for name in SIGNALS
    }
    features = {
        name: np.frombuffer(fields[stored], np.float16).reshape(-1, fields["width"])
        for name, old_name in FEATURES.items()
        for stored in (name, old_name)
        if stored in fields
    }
    video = {
        name: np.frombuffer(fields[name], np.float16).reshape(-1, fields["video_width"])
        for name in VIDEO
        if name in fields
    }
    frames = len(latents["mixture"])
    return Record(
        **latents,
        **features,
        **video,
        target_texts=tuple(fields["target_texts"]),
        residual_texts=tuple(fields["residual_texts"]),
        target_active=_active(fields["target_active"], frames),
        residual_active=_active(fields["residual_active"], frames),
        category=fields["category"],
        target_claims=tuple(fields.get("target_claims", ())),
        residual_claims=tuple(fields.get("residual_claims", ())),
    )


def _active(packed: bytes, frames: int) -> Bool[np.ndarray, " frames"]:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=frames).view(bool)
