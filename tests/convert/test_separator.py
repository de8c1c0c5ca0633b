"""Names, shapes and sizes of the reference, at tiny and at full size."""

import json
import os
import pathlib

import pytest
from flax import nnx

from sam_audio_jax.convert.names import shapes
from sam_audio_jax.convert.separator import (
    dit_from_reference,
    dit_to_reference,
    feed_forward_size,
    separator_rows,
)
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import Separator, SeparatorConfig

GENERATOR = ("transformer.", "proj.", "align_masked_video.", "embed_anchors.", "memory_proj.")
SPEC = pathlib.Path(os.environ.get("SAM_AUDIO_SPEC") or "../shared/spec")


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
    model = nnx.eval_shape(lambda: Separator(config, rngs=nnx.Rngs(0)))
    ours = {row.ours for row in separator_rows(config)}
    flat = nnx.to_flat_state(nnx.state(model))
    assert ours == {".".join(map(str, path)) for path, _ in flat}


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_names_and_shapes_at_full_size(size):
    path = SPEC / f"checkpoint_params_{size}.json"
    if not path.exists():
        pytest.skip("the list of the released checkpoint's tensors is not here")
    listed = json.loads(path.read_text())
    dit = dit_from_reference(listed["transformer"], "float32")
    config = SeparatorConfig(dit=dit)
    model = nnx.eval_shape(lambda: Separator(config, rngs=nnx.Rngs(0)))
    got = shapes(model, separator_rows(config), dit.depth)
    want = {name: tuple(shape) for name, shape in tensors_of(listed).items()}
    assert got == {name: shape for name, shape in want.items() if name.startswith(GENERATOR)}


def tensors_of(listed: dict) -> dict:
    return next(v for v in listed.values() if isinstance(v, dict) and "proj.weight" in v)
