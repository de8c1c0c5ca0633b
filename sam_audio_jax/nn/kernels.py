"""Scaled dot-product attention by the kernel that the platform has.

`auto` chooses splash attention (Pallas) on a TPU, cuDNN's on a GPU and XLA's elsewhere, and XLA's
wherever the fused kernels do not apply. All agree on the valid rows; padded rows differ.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError

Kernel = Literal["auto", "xla", "splash", "cudnn"]

LANES = 128  # splash attention needs a multiple of so many frames
LARGEST_BLOCK = 512
SAVED = "attention"  # name of the results, for rematerialisation policies
LAYOUT = ("batch", "tokens", "heads", "head_dim")  # every device has all frames

Mask = Bool[Array, "batch keys"] | Bool[Array, "batch frames keys"] | None
Bias = Float[Array, "heads frames keys"] | Float[Array, "batch heads frames keys"] | None


def attend(
    q: Float[Array, "batch frames heads size"],
    k: Float[Array, "batch keys heads size"],
    v: Float[Array, "batch keys heads size"],
    *,
    mask: Mask = None,  # True = may be attended; a row without any True gives a finite value
    bias: Bias = None,  # added to the scaled scores
    scale: float,
    kernel: Kernel = "xla",
) -> Float[Array, "batch frames heads size"]:
    """Attention by the kernel that `choose` returns.

    Raises `UserError` where a kernel that is named explicitly cannot compute it.
    """
    name = choose(q, k, mask=mask, bias=bias, kernel=kernel)
    if name == "splash":
        return checkpoint_name(_splash(q, k, v, mask, scale), SAVED)
    mixed = jax.nn.dot_product_attention(
        q,
        k,
        v,
        bias=None if bias is None else bias.reshape(-1, *bias.shape[-3:]).astype(jnp.float32),
        mask=None if mask is None else mask.reshape(mask.shape[0], 1, -1, mask.shape[-1]),
        scale=scale,
        implementation="cudnn" if name == "cudnn" else "xla",
    )
    return checkpoint_name(mixed, SAVED)


def choose(q: Any, k: Any, *, mask: Any, bias: Any, kernel: Kernel) -> Kernel:
    """The kernel that will run, never `auto`. Raises `UserError` as `attend`."""
    if kernel == "xla":  # takes any shape, also one that is left open
        return kernel
    plain = q.shape[1] == k.shape[1] and bias is None and (mask is None or mask.ndim == 2)
    even = not (
        q.shape[0] % parallel.axis_size("batch") or q.shape[2] % parallel.axis_size("heads")
    )
    whole = parallel.axis_size("frames") == 1 and even
    splash = plain and whole and q.shape[1] >= LANES and q.shape[3] % 32 == 0
    cudnn = bias is None and q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[3] <= 128
    if kernel == "auto":
        platform = parallel.platform()
        if platform == "tpu" and splash:
            return "splash"
        return "cudnn" if platform in ("gpu", "cuda") and cudnn else "xla"
    if kernel == "splash" and not splash:
        raise UserError(
            f"dit.attention=splash needs {LANES} frames or more, heads of a multiple of 32, "
            "mesh.sequence=1 and items and heads that the mesh divides; given "
            f"{q.shape[1]} frames, {q.shape[0]} items, {q.shape[2]} heads of {q.shape[3]}, "
            f"mesh.sequence={parallel.axis_size('frames')}; auto or xla take any"
        )
    if kernel == "cudnn" and not (cudnn and parallel.platform() in ("gpu", "cuda")):
        raise UserError(
            f"dit.attention=cudnn needs a GPU and 16-bit heads of at most 128, not {q.dtype} heads "
            f"of {q.shape[3]} on {parallel.platform()}; auto or xla take any"
        )
    return kernel


def _splash(q: Array, k: Array, v: Array, mask: Array | None, scale: float) -> Array:
    """Splash attention on each device's own items and heads; frames are padded to whole blocks."""
    frames = q.shape[1]
    valid = jnp.ones(q.shape[:2], bool) if mask is None else mask
    pads = ((0, 0), (0, -frames % LANES))
    q, k, v = (jnp.pad(x, (*pads, (0, 0), (0, 0))) for x in (q * scale, k, v))
    valid = jnp.pad(valid, pads).astype(jnp.int32)
    run = parallel.per_device(_splash_local, (LAYOUT,) * 3 + (LAYOUT[:2],), LAYOUT)
    return run(q, k, v, valid)[:, :frames]


def _splash_local(q: Array, k: Array, v: Array, valid: Array) -> Array:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    frames, heads = q.shape[1:3]
    blocks = range(LARGEST_BLOCK, 0, -LANES)
    block = next(size for size in blocks if frames % size == 0)
    sizes: Any = dict.fromkeys(_BLOCKS, block)
    kernel = splash.make_splash_mha_single_device(
        mask=splash.MultiHeadMask([splash.FullMask((frames, frames))] * heads),
        block_sizes=splash.BlockSizes(**sizes),
        residual_checkpoint_name=SAVED,
        interpret=parallel.platform() != "tpu",
    )
    q, k, v = (jnp.moveaxis(x, 2, 1) for x in (q, k, v))
    # Padded rows attend to padded keys: no row is empty, and valid rows attend to valid keys only.
    mixed: Any = jax.vmap(kernel)(q, k, v, splash.SegmentIds(q=valid, kv=valid))
    return jnp.moveaxis(mixed, 1, 2).astype(q.dtype)


_BLOCKS = (
    *("block_q", "block_kv", "block_kv_compute"),
    *("block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute"),
    *("block_q_dq", "block_kv_dq"),
)
