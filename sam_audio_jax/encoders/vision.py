"""The Perception Encoder's image tower, which sees the frames of masked video.

Paper: arXiv 2504.13181. Arithmetic: docs/prompt_encoders.md, "Perception Encoder". The tower is
frozen: one vector for each frame, computed once for a separation.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Num, PyTree, UInt8

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.mlp import Mlp
from sam_audio_jax.nn.norm import LayerNorm

THETA = 10_000.0  # of the rotary positions
POOL_MLP = 4  # hidden over outer width of the pool's perceptron, whatever the blocks have

Images = Float[Array, "batch y x 3"]
Tokens = Float[Array, "batch tokens width"]
Frames = UInt8[np.ndarray, "_ _ _ 3"] | Float[np.ndarray, "_ _ _ 3"]  # count, height, width


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Sizes of the tower; the defaults are the released PE-Core-L14-336."""

    image_size: int = 336  # pixels; of the grid that the learned positions belong to
    patch_size: int = 14  # pixels
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: int = 4096
    output: int = 1024
    class_token: bool = True
    layer_scale: float | None = None  # its value at birth; PE-Core has none
    pool_heads: int = 8
    eps: float = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        for name in ("patch_size", "width", "depth", "heads", "mlp", "output", "pool_heads"):
            if getattr(self, name) < 1:
                raise UserError(f"vision.{name}={getattr(self, name)} must be at least 1")
        if self.image_size < 1 or self.image_size % self.patch_size:
            raise UserError(
                f"vision.image_size={self.image_size} must be a multiple of "
                f"vision.patch_size={self.patch_size}"
            )
        if self.width % (4 * self.heads):  # pairs along both axes
            raise UserError(
                f"vision.width={self.width} must be a multiple of 4 * vision.heads={self.heads}"
            )
        if self.width % self.pool_heads:
            raise UserError(
                f"vision.width={self.width} must be a multiple of "
                f"vision.pool_heads={self.pool_heads}"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of the native image."""
        return self.image_size // self.patch_size


def grid_angles(
    rows: int, columns: int, head_dim: int, *, class_token: bool
) -> Float[np.ndarray, "tokens pairs"]:
    """Of every token: first half of the pairs turns with the column, second half with the row.

    With a class token patches count from 1 and it is not turned. Large images are not rescaled.
    """
    first = int(class_token)
    table = rope.angles(max(rows, columns) + first, head_dim // 2, THETA)
    row, column = np.indices((rows, columns)).reshape(2, -1) + first
    return np.pad(np.concatenate([table[column], table[row]], axis=1), ((first, 0), (0, 0)))


class LayerScale(nnx.Module):
    """A learned gain for each channel."""

    def __init__(self, width: int, value: float):
        self.gain = nnx.Param(jnp.full(width, value), **parallel.axes("embed"))

    def __call__(self, x: Tokens) -> Tokens:
        return x * self.gain[...].astype(x.dtype)


def _unscaled(x: Tokens) -> Tokens:
    return x


class Block(nnx.Module):
    """Self-attention with 2D rotary positions, then the perceptron, both pre-normalised."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        width, head_dim = config.width, config.width // config.heads
        norm = functools.partial(LayerNorm, width, eps=config.eps, rngs=rngs)
        self.attention_norm = norm()
        self.attention = Attention(
            width,
            config.heads,
            head_dim,
            scale=head_dim**-0.5,
            qk_eps=None,
            bias=True,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.mlp_norm = norm()
        self.mlp = Mlp(width, config.mlp, dtype=config.dtype, rngs=rngs)
        scale = config.layer_scale
        self.attention_scale = _unscaled if scale is None else LayerScale(width, scale)
        self.mlp_scale = _unscaled if scale is None else LayerScale(width, scale)

    def __call__(self, x: Tokens, angle: Float[np.ndarray, "tokens pairs"]) -> Tokens:
        x = x + self.attention_scale(self.attention(self.attention_norm(x), angle=angle))
        return x + self.mlp_scale(self.mlp(self.mlp_norm(x)))


class AttentionPool(nnx.Module):
    """One learned query over all tokens, then a residual perceptron.

    The query is not normalised and there is no residual around the attention.
    """

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        width = config.width
        probe = jax.random.normal(rngs.params(), (1, width)) * width**-0.5
        self.probe = nnx.Param(probe, **parallel.axes("channels", "embed"))
        self.attention = Attention(
            width,
            config.pool_heads,
            width // config.pool_heads,
            scale=(width // config.pool_heads) ** -0.5,
            qk_eps=None,
            bias=True,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.mlp = Mlp(width, POOL_MLP * width, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Tokens) -> Float[Array, "batch width"]:
        probe = jnp.broadcast_to(self.probe[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        pooled = self.attention(probe, x)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class VisionEncoder(nnx.Module):
    """Images to one vector each. Any size works: positions are resized, rotations go on."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, patch = config.width, config.patch_size
        self.patch = linear(
            3 * patch**2, width, ("channels", "embed"), dtype=config.dtype, rngs=rngs
        )
        tokens = config.grid**2 + config.class_token
        small = jax.nn.initializers.normal(width**-0.5)
        self.positions = nnx.Param(
            small(rngs.params(), (tokens, width)), **parallel.axes("channels", "embed")
        )
        self.class_token = (
            nnx.Param(small(rngs.params(), (width,)), **parallel.axes("embed"))
            if config.class_token
            else None
        )
        self.norm_in = LayerNorm(width, eps=config.eps, rngs=rngs)

        @nnx.split_rngs(splits=config.depth)
        @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layers"})
        def stack(rngs):
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)
        self.norm_out = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.pool = AttentionPool(config, rngs=rngs)
        self.project = linear(
            width, config.output, ("embed", "channels"), dtype=config.dtype, rngs=rngs
        )

    def patches(self, images: Images) -> Float[Array, "batch rows columns width"]:
        """The patches' embedding; pixels beyond the last whole patch are left out."""
        patch = self.config.patch_size
        batch, height, width, colours = images.shape
        rows, columns = height // patch, width // patch
        if not rows or not columns:
            raise UserError(f"images of {width} x {height} pixels are smaller than a patch")
        whole = images[:, : rows * patch, : columns * patch]
        cut = whole.reshape(batch, rows, patch, columns, patch, colours)
        return self.patch(cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1))

    def positions_at(self, rows: int, columns: int) -> Float[Array, "tokens width"]:
        """The learned table, resized bilinearly for a grid that is not the native one."""
        table, first, side = self.positions[...], int(self.config.class_token), self.config.grid
        if (rows, columns) == (side, side):
            return table
        native = table[first:].reshape(side, side, -1)
        shape = (rows, columns, native.shape[-1])
        resized = jax.image.resize(native, shape, "bilinear", antialias=False)
        return jnp.concatenate([table[:first], resized.reshape(rows * columns, -1)])

    def embed(self, images: Images) -> Tokens:
        """What the first block reads."""
        x = self.patches(images)
        batch, rows, columns, width = x.shape
        x = x.reshape(batch, rows * columns, width)
        if self.class_token is not None:
            first = self.class_token[...].astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, width)), x], axis=1)
        return self.norm_in(x + self.positions_at(rows, columns).astype(x.dtype))

    def tokens(self, images: Images) -> Tokens:
        """After the last block and its norm, the class token (if any) first."""
        config, patch = self.config, self.config.patch_size
        angle = grid_angles(
            images.shape[1] // patch,
            images.shape[2] // patch,
            config.width // config.heads,
            class_token=config.class_token,
        )
        graph, layers = nnx.split(self.blocks)

        def body(x, layer):
            x = parallel.constrain(x, "batch", "tokens", "width")
            return nnx.merge(graph, layer)(x, angle), None

        x = jax.lax.scan(body, self.embed(images), nnx.as_pure(layers))[0]
        return self.norm_out(x)

    def encode(self, images: Images, *, normalize: bool = True) -> Float32[Array, "batch output"]:
        """One vector for each image of `pixels`, by default of length 1."""
        vector = self.project(self.pool(self.tokens(images))).astype(jnp.float32)
        if not normalize:
            return vector
        length = jnp.linalg.norm(vector, axis=-1, keepdims=True)
        return vector / jnp.maximum(length, 1e-12)


def resize(frames: Num[Array, "frames y x 3"], size: int) -> Num[Array, "frames size size 3"]:
    """Squashes to `size` x `size`: cubic (a = -0.5) with antialiasing.

    As the reference, uint8 comes out as uint8, clamped and rounded half to even; floats overshoot.
    """
    if frames.shape[1:3] == (size, size):
        return frames
    shape = (frames.shape[0], size, size, 3)
    smooth = jax.image.resize(frames.astype(jnp.float32), shape, "cubic", antialias=True)
    if frames.dtype != jnp.uint8:
        return smooth
    return jnp.clip(jnp.round(smooth), 0, 255).astype(jnp.uint8)


def pixels(frames: Num[Array, "frames y x 3"]) -> Float32[Array, "frames y x 3"]:
    """0..255 to -1..1: `(x / 255 - 0.5) / 0.5`, to the bit for whole numbers.

    XLA turns a division by 255 into a product that rounds differently; this sum does not.
    """
    x = frames.astype(jnp.float32)
    return 2 * (x * (1 / 256) + x * (1 / (255 * 256))) - 1


_resize = jax.jit(resize, static_argnames="size")


@functools.partial(jax.jit, static_argnames=("graph", "normalize"))
def _encode(
    graph: nnx.GraphDef,
    state: PyTree,
    frames: Num[Array, "frames y x 3"],
    *,
    normalize: bool,
) -> Float32[Array, "frames output"]:
    return nnx.merge(graph, state).encode(pixels(frames), normalize=normalize)


def encode_clips(
    model: VisionEncoder,
    clips: Iterable[Frames | Iterable[Frames]],
    *,
    size: int | None = None,
    normalize: bool = True,
    most: int = 64,
    mesh: Mesh | None = None,
) -> list[Float32[np.ndarray, "frames output"]]:
    """One vector for each frame of each clip; frames are resized here, to `size` (or the native).

    A clip is an array of values in 0..255, or its pieces one after another (then only `most` frames
    at full size are ever held). Clips of all lengths share slices of `most` frames, the last padded
    to a power of two: at most log2(most) + 1 programs are compiled for the tower, and as many small
    ones for each frame size. Slicing changes no number. With a mesh, `model`'s parameters must lie
    on it (`parallel.parameter_shardings`); frames are shared out over its devices.
    """
    size = model.config.image_size if size is None else size
    shares = 1 if mesh is None else parallel.batch_axis_size(mesh)
    most = shares * max(1, most // shares)
    graph, state = nnx.split(model)
    state = nnx.as_pure(state)
    lengths: list[int] = []

    def small() -> Iterator[Frames]:
        for number, clip in enumerate(clips):
            lengths.append(0)
            for piece in _pieces(clip, most):
                lengths[-1] += len(piece)
                yield _shrunk(piece, size, most)
            if not lengths[-1]:
                raise UserError(f"clip {number} has no frames")

    def run(frames: Frames) -> Float32[np.ndarray, "frames output"]:
        padded = _padded(frames, most, shares)
        if mesh is None:
            vectors = _encode(graph, state, padded, normalize=normalize)
        else:
            with jax.set_mesh(mesh):
                placed = jax.device_put(padded, parallel.batch_sharding(mesh))
                vectors = _encode(graph, state, placed, normalize=normalize)
        return np.asarray(vectors)[: len(frames)]

    vectors = [run(frames) for frames in _slices(small(), most)]
    if not lengths:
        return []
    return np.split(np.concatenate(vectors), np.cumsum(lengths)[:-1])


def _pieces(clip: Frames | Iterable[Frames], most: int) -> Iterator[Frames]:
    for part in [clip] if isinstance(clip, np.ndarray) else clip:
        yield from (part[start : start + most] for start in range(0, len(part), most))


def _shrunk(frames: Frames, size: int, most: int) -> Frames:
    if frames.shape[1:3] == (size, size):
        return frames
    return np.asarray(_resize(_padded(frames, most, 1), size=size))[: len(frames)]


def _padded(frames: Frames, most: int, shares: int) -> Frames:
    """Black frames fill up to `shares` times a power of two, or to `most`."""
    groups = -(-len(frames) // shares)
    rows = min(most, shares << (groups - 1).bit_length())
    return np.pad(frames, ((0, rows - len(frames)), (0, 0), (0, 0), (0, 0)))


def _slices(pieces: Iterable[Frames], most: int) -> Iterator[Frames]:
    """The same frames, regrouped by `most`."""
    held: list[Frames] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= most:
            frames = np.concatenate(held)
            yield frames[:most]
            held = [frames[most:]] if len(frames) > most else []
    if held:
        yield np.concatenate(held)
