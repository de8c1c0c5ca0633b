"""One encoded mixture, and its form as bytes in a shard of a latent cache."""

import dataclasses
import hashlib
from typing import Any, cast

import msgpack
import numpy as np
from jaxtyping import Bool, Float16

from sam_audio_jax.errors import UserError

SIGNALS = ("mixture", "target", "residual")
VIDEO = ("target_video", "residual_video")
WAVES = ("target_wave", "residual_wave")
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
    # The waves themselves, of a cache that has them; those of its silence are 0.
    target_wave: Float16[np.ndarray, " samples"] | None = None
    residual_wave: Float16[np.ndarray, " samples"] | None = None


def pack(record: Record, number: int | None = None) -> bytes:
    """Returns a record as bytes (msgpack), with its number in a cache if that is given."""
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
    for name in WAVES:
        if (wave := getattr(record, name)) is not None:
            fields[name] = wave.tobytes()
    if number is not None:
        fields["number"] = number
    return cast(bytes, msgpack.packb(fields))


def with_digest(packed: bytes) -> bytes:
    """Bytes of `pack` with a SHA-256 of them among their fields; `unpack` reads both."""
    digest = {"sha256": hashlib.sha256(packed).hexdigest()}
    return cast(bytes, msgpack.packb(msgpack.unpackb(packed) | digest))


def check_digest(data: bytes) -> None:
    """Raises `ValueError` for bytes of `with_digest` that have changed since."""
    fields = msgpack.unpackb(data)
    digest = fields.pop("sha256", None)  # an earlier version wrote none
    packed = cast(bytes, msgpack.packb(fields))
    if digest is not None and digest != hashlib.sha256(packed).hexdigest():
        raise ValueError("its checksum is another one")


def unpack(data: bytes, number: int | None = None) -> Record:
    """Returns the record that `pack` made bytes of, in any format; its arrays are read-only.

    Raises `UserError` for a record that says that it is another one than `number`.
    """
    fields = msgpack.unpackb(data)
    if number is not None and fields.get("number", number) != number:
        raise UserError(f"record {number} is the one with number {fields['number']}")
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
    waves = {name: np.frombuffer(fields[name], np.float16) for name in WAVES if name in fields}
    frames = len(latents["mixture"])
    return Record(
        **latents,
        **features,
        **video,
        **waves,
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
