"""ImageBind: names of the tensors of its audio and vision towers (docs/scoring.md, "ImageBind").

The released `imagebind_huge.pth` is a pickled flat state dict with four more modalities, which
nothing here runs. Code and weights are licensed CC BY-NC-SA 4.0, which forbids commercial use:
the weights are no part of this package, and `load_imagebind` names the licence.
"""

import dataclasses
import pathlib
import warnings

from jax.sharding import Mesh

from sam_audio_jax.convert.names import (
    LINEAR,
    SAME,
    Row,
    Table,
    TensorLayout,
    linear_rows,
    norm_rows,
)
from sam_audio_jax.convert.tensors import State, Tensor, open_safetensors, open_torch
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.imagebind import ImageBind, ImageBindConfig, TrunkConfig

LICENCE = (
    "the weights of ImageBind are licensed CC BY-NC-SA 4.0: for non-commercial use only "
    "(creativecommons.org/licenses/by-nc-sa/4.0)"
)
PARTS = ("preprocessors", "trunks", "heads", "postprocessors")
OTHER_MODALITIES = ("text", "depth", "thermal", "imu")
UNUSED = (
    *(f"modality_{part}.{name}." for part in PARTS for name in OTHER_MODALITIES),
    "modality_postprocessors.audio.",  # a gain of all audio vectors: no cosine depends on it
)
IMAGE_KERNEL = "modality_preprocessors.vision.rgbt_stem.proj.1.weight"
AUDIO_KERNEL = "modality_preprocessors.audio.rgbt_stem.proj.weight"
CLASS_TOKEN = TensorLayout(lambda w: w[0, 0], lambda w: w[None, None])
POSITIONS = TensorLayout(lambda w: w[0], lambda w: w[None])
# [out, 1, bands, frames] <-> [bands, frames, 1, out]
SPECTRUM_PATCHES = TensorLayout(
    lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)
)


def _image_patches(frames: int, side: int) -> TensorLayout:
    """A convolution of stride = window, `[out, 3, t, y, x]` <-> a matrix `[(t, y, x, 3), out]`."""
    return TensorLayout(
        lambda w: w.transpose(2, 3, 4, 1, 0).reshape(-1, w.shape[0]),
        lambda w: w.reshape(frames, side, side, 3, -1).transpose(4, 3, 0, 1, 2),
    )


def _trunk(name: str, config: TrunkConfig) -> list[Row]:
    """Every parameter of the transformer of one modality; `{layer}` counts its own layers."""
    layers = range(config.depth)
    before, head = f"modality_preprocessors.{name}", f"modality_heads.{name}"
    block, attention = f"modality_trunks.{name}.blocks.{{layer}}", f"{name}.blocks.attention"
    in_layers = [
        *norm_rows(f"{block}.norm_1", f"{name}.blocks.attention_norm"),
        *(
            Row(f"{block}.attn.in_proj_{t}", f"{attention}.{ours}.{o}", layout)
            for t, o, layout in (("weight", "kernel", LINEAR), ("bias", "bias", SAME))
            for ours in ("query", "key", "value")
        ),
        *linear_rows(f"{block}.attn.out_proj", f"{attention}.out"),
        *norm_rows(f"{block}.norm_2", f"{name}.blocks.mlp_norm"),
        *linear_rows(f"{block}.mlp.fc1", f"{name}.blocks.mlp.up"),
        *linear_rows(f"{block}.mlp.fc2", f"{name}.blocks.mlp.down"),
    ]
    if config.extra_key:
        in_layers.append(Row(f"{block}.attn.bias_k", f"{attention}.extra_key", CLASS_TOKEN))
        in_layers.append(Row(f"{block}.attn.bias_v", f"{attention}.extra_value", CLASS_TOKEN))
    rows = [
        Row(f"{before}.cls_token", f"{name}.class_token", CLASS_TOKEN),
        Row(f"{before}.pos_embedding_helper.pos_embed", f"{name}.positions", POSITIONS),
        *(dataclasses.replace(row, layers=layers) for row in in_layers),
        *norm_rows(f"{head}.0", f"{name}.norm_out"),
        Row(f"{head}.2.weight", f"{name}.project.kernel", LINEAR),
    ]
    if config.norm_in:
        rows += norm_rows(f"modality_trunks.{name}.pre_transformer_layer.0", f"{name}.norm_in")
    return rows


def imagebind_rows(config: ImageBindConfig) -> list[Row]:
    """Every parameter of both towers."""
    return [
        Row(
            IMAGE_KERNEL,
            "image_patches.kernel",
            _image_patches(config.clip_frames, config.image_patch),
        ),
        *_trunk("vision", config.vision),
        Row(AUDIO_KERNEL, "audio_patches", SPECTRUM_PATCHES),
        *norm_rows("modality_preprocessors.audio.rgbt_stem.norm_layer", "audio_norm"),
        *_trunk("audio", config.audio),
    ]


def imagebind_table(config: ImageBindConfig) -> Table[ImageBind]:
    """The names of all tensors of towers of this configuration."""
    return Table(
        lambda: ImageBind(config, rngs=Rngs(0)),
        imagebind_rows(config),
        0,  # each row names its own layers
        "ImageBind checkpoint",
    )


def used(state: State) -> dict[str, Tensor]:
    """The tensors without those of other modalities and the gain of audio vectors."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(UNUSED)}


def imagebind_from_reference(
    state: State, config: ImageBindConfig, mesh: Mesh | None = None
) -> ImageBind:
    """Builds both towers. Raises `UserError` that names every tensor that does not fit."""
    return imagebind_table(config).build(used(state), mesh)


def load_imagebind(
    name: str, config: ImageBindConfig | None = None, mesh: Mesh | None = None
) -> ImageBind:
    """Reads `imagebind_huge.pth`, or its tensors in a `.safetensors` file.

    Warns that the weights are for non-commercial use. Raises `UserError` when there is no such file
    or when it does not fit.
    """
    path = pathlib.Path(name)
    if not path.is_file():
        raise UserError(f"no ImageBind checkpoint at {path}")
    state = open_safetensors(path) if path.suffix == ".safetensors" else open_torch(path)
    network = imagebind_from_reference(state, config or ImageBindConfig(), mesh)
    warnings.warn(LICENCE, stacklevel=2)
    return network
