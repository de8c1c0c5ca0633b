"""Names, shapes and sizes of the reference, at tiny and at full size."""

import json
import pathlib

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.convert.codec import codec_config, codec_table
from sam_audio_jax.convert.folder import CODEC_PREFIX, TOWER_PREFIX
from sam_audio_jax.convert.separator import (
    dit_from_reference,
    dit_to_reference,
    feed_forward_size,
    separator_config,
    separator_rows,
    separator_table,
)
from sam_audio_jax.convert.upstream_config import with_defaults
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import Separator, SeparatorConfig

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"


@pytest.mark.parametrize(("width", "mlp"), [(1536, 4096), (2048, 5504), (2816, 7552)])
def test_published_feed_forward_sizes(width, mlp):
    sizes = {"dim": width, "ffn_exp": 4, "ffn_dim_multiplier": 1, "multiple_of": 64}
    assert feed_forward_size(sizes) == mlp


@pytest.mark.parametrize("mlp", [704, 512, 1000, 171, 40, 3])
def test_any_feed_forward_size_can_be_written(mlp):
    config = DitConfig(depth=3, width=256, heads=4, mlp=mlp, dropout=0.0, dtype="float32")
    assert dit_from_reference(dit_to_reference(config, 16, {}), "float32") == config


def test_every_row_names_a_parameter_and_none_is_left_out():
    dit = DitConfig(depth=2, width=16, heads=2, mlp=24, context_norm=True)
    config = SeparatorConfig(dit=dit, channels=3, text_width=5, video_width=7, anchor_width=6)
    model = nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0)))
    ours = {row.ours for row in separator_rows(config)}
    flat = nnx.to_flat_state(nnx.state(model))
    assert ours == {".".join(map(str, path)) for path, _ in flat}


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_every_tensor_of_a_released_checkpoint_is_known(size):
    """Codec and separator have what is listed, name by name; the rest is the CLIP model's."""
    listed = json.loads((INVENTORIES / f"checkpoint_params_{size}.json").read_text())
    want = {name: tuple(shape) for name, shape in tensors_of(listed).items()}
    bare = {
        name.removeprefix(CODEC_PREFIX): np.broadcast_to(np.float32(0), shape)
        for name, shape in want.items()
    }
    full = with_defaults({"transformer": listed["transformer"]})
    codec = codec_config(full["audio_codec"], bare)
    assert codec == CodecConfig()
    got = codec_table(codec, CODEC_PREFIX).shapes()
    got |= separator_table(separator_config(full, "float32")).shapes()
    rest = set(want) - set(got)
    assert got == {name: shape for name, shape in want.items() if name not in rest}
    assert all(name.startswith(TOWER_PREFIX) for name in rest)
    assert {name.split(".")[2] for name in rest} > {"visual", "transformer", "token_embedding"}


def tensors_of(listed: dict) -> dict:
    return next(v for v in listed.values() if isinstance(v, dict) and "proj.weight" in v)
