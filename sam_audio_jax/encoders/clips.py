"""ClipFrames of video clips to features: resizing, pixel values, batches through the image tower.

Arithmetic: docs/prompt_encoders.md, "Perception Encoder".
"""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Num, UInt8

from sam_audio_jax.encoders.vision import VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled, padded_rows

ClipFrames = UInt8[np.ndarray, "_ _ _ 3"] | Float[np.ndarray, "_ _ _ 3"]  # count, height, width


def resize(frames: Num[Array, "frames y x 3"], size: int) -> Num[Array, "frames size size 3"]:
    """Resizes to `size` x `size`, whatever the aspect ratio: antialiased bicubic (a = -0.5).

    As in the reference, uint8 frames give uint8, clamped and rounded half to even; floats may
    overshoot the range of their inputs.
    """
    if frames.shape[1:3] == (size, size):
        return frames
    shape = (frames.shape[0], size, size, 3)
    smooth = jax.image.resize(frames.astype(jnp.float32), shape, "cubic", antialias=True)
    if frames.dtype != jnp.uint8:
        return smooth
    return jnp.clip(jnp.round(smooth), 0, 255).astype(jnp.uint8)


def pixels(frames: Num[Array, "frames y x 3"]) -> Float32[Array, "frames y x 3"]:
    """Maps 0..255 to -1..1: `(x / 255 - 0.5) / 0.5`, bit-exact for whole numbers.

    XLA replaces a division by 255 with a product that rounds differently; this sum avoids that.
    """
    x = frames.astype(jnp.float32)
    return 2 * (x * (1 / 256) + x * (1 / (255 * 256))) - 1


_resize = jax.jit(resize, static_argnames="size")


def _encode(
    model: VisionEncoder, frames: Num[Array, "frames y x 3"], *, normalize: bool
) -> Float32[Array, "frames output"]:
    return model.encode(pixels(frames), normalize=normalize)


def encode_clips(
    model: VisionEncoder,
    clips: Iterable[ClipFrames | Iterable[ClipFrames]],
    *,
    size: int | None = None,
    normalize: bool = True,
    batch_size: int = 64,
    mesh: Mesh | None = None,
) -> list[Float32[np.ndarray, "frames output"]]:
    """Returns one vector for each frame of each clip.

    A clip is an array of values in 0..255, or an iterable of consecutive pieces of one; with pieces
    at most `batch_size` frames are in memory at full size. Frames are resized here, to `size` or
    the tower's native size. Frames of all clips share batches of `batch_size`; the last batch is
    padded to a power of two, so the tower compiles at most log2(batch_size) + 1 programs, and
    resizing as many for each frame size. No result depends on the batch that its frame is in.

    With a mesh, parameters and batches are sharded over its devices. Raises UserError for a clip
    without frames.
    """
    size = model.config.image_size if size is None else size
    compiled = Compiled(model, mesh)
    shards = compiled.batch_shards
    batch_size = shards * max(1, batch_size // shards)
    lengths: list[int] = []

    def resized() -> Iterator[ClipFrames]:
        """All frames of all clips, piece by piece; `lengths` counts the frames of each clip."""
        for number, clip in enumerate(clips):
            lengths.append(0)
            for piece in _pieces(clip, batch_size):
                lengths[-1] += len(piece)
                yield _resize_piece(piece, size, batch_size)
            if not lengths[-1]:
                raise UserError(f"clip {number} has no frames")

    def encode(frames: ClipFrames) -> Float32[np.ndarray, "frames output"]:
        padded = _pad(frames, batch_size, shards)
        vectors = compiled.on_batch(_encode, padded, normalize=normalize)
        return np.asarray(vectors)[: len(frames)]

    vectors = [encode(batch) for batch in _batches(resized(), batch_size)]
    if not lengths:
        return []
    return np.split(np.concatenate(vectors), np.cumsum(lengths)[:-1])


def _pieces(clip: ClipFrames | Iterable[ClipFrames], batch_size: int) -> Iterator[ClipFrames]:
    """Splits a clip into pieces of at most `batch_size` frames."""
    for part in [clip] if isinstance(clip, np.ndarray) else clip:
        yield from (part[start : start + batch_size] for start in range(0, len(part), batch_size))


def _resize_piece(frames: ClipFrames, size: int, batch_size: int) -> ClipFrames:
    if frames.shape[1:3] == (size, size):
        return frames
    return np.asarray(_resize(_pad(frames, batch_size, 1), size=size))[: len(frames)]


def _pad(frames: ClipFrames, batch_size: int, shards: int) -> ClipFrames:
    """Appends black frames up to `shards` times a power of two, at most to `batch_size`."""
    rows = padded_rows(len(frames), batch_size // shards, shards)
    return np.pad(frames, ((0, rows - len(frames)), (0, 0), (0, 0), (0, 0)))


def _batches(pieces: Iterable[ClipFrames], batch_size: int) -> Iterator[ClipFrames]:
    """Regroups the frames of all pieces, in order, into batches of `batch_size`."""
    waiting: list[ClipFrames] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= batch_size:
            frames = np.concatenate(waiting)
            yield frames[:batch_size]
            waiting = [frames[batch_size:]] if len(frames) > batch_size else []
    if waiting:
        yield np.concatenate(waiting)
