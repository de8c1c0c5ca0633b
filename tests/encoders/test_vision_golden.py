"""The image tower and the features of videos against the reference's numbers (`pe_vision/`)."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.convert.vision import tower_config, vision_from_reference, vision_table
from sam_audio_jax.encoders.clips import encode_clips, pixels, resize
from sam_audio_jax.encoders.vision import grid_angles
from tests.conftest import fixtures

pytestmark = pytest.mark.golden
FOLDER = fixtures() / "pe_vision"
SIZES = sorted(FOLDER.glob("*/io_*.safetensors"))
RELATIVE = 2e-5  # of a tensor's largest absolute value, as the fixtures' README expects


def near(got, want, name=""):
    np.testing.assert_allclose(got, want, rtol=0, atol=RELATIVE * np.abs(want).max(), err_msg=name)


def tower(folder: pathlib.Path):
    config = tower_config(json.loads((folder / "config.json").read_text()))
    return vision_from_reference(load_file(folder / "weights.safetensors"), config)


def channels_last(frames):
    return frames.transpose(0, 2, 3, 1)


def test_there_are_cases():
    assert SIZES


@jax.jit
def stages(encoder, images):
    """Every tensor that the reference stored, by its name; `output` runs the scan of all blocks."""
    config, patches = encoder.config, encoder.patches(images)
    rows, columns = patches.shape[1:3]
    angle = grid_angles(rows, columns, config.width // config.heads, class_token=config.class_token)
    x = encoder.embed(images)
    by_name = {
        "conv1": patches.transpose(0, 3, 1, 2),
        "pos_embed_used": encoder.positions_at(rows, columns)[None],
        "rope_angles": jnp.repeat(angle, 2, axis=1),  # both channels of a pair
        "ln_pre": x,
    }
    graph, layers = nnx.split(encoder.blocks)
    for layer in range(config.depth):
        block = nnx.merge(graph, jax.tree.map(lambda leaf, i=layer: leaf[i], layers))
        by_name[f"block{layer}.attn"] = block.attention(block.attention_norm(x), angle=angle)
        x = by_name[f"block{layer}"] = block(x, angle)
    x = by_name["ln_post"] = encoder.norm_out(x)
    probe = jnp.broadcast_to(encoder.pool.probe[...], (len(x), 1, x.shape[-1]))
    return by_name | {
        "attn_pool.attn": encoder.pool.attention(probe, x),
        "attn_pool": encoder.pool(x)[:, None],
        "output": encoder.encode(images, normalize=False),
        "output_normalized": encoder.encode(images),
    }


@pytest.mark.parametrize("path", SIZES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_stage(path):
    io = load_file(path)
    got = stages(tower(path.parent), jnp.asarray(channels_last(io.pop("image"))))
    assert set(got) == set(io)
    for name, want in io.items():
        near(got[name], want, name)


@pytest.mark.parametrize("folder", sorted({path.parent for path in SIZES}), ids=lambda p: p.name)
def test_export_gives_back_every_tensor(folder):
    stored, encoder = load_file(folder / "weights.safetensors"), tower(folder)
    back = vision_table(encoder.config).stored(encoder)
    assert set(back) == set(stored)
    for name, tensor in stored.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.fixture(scope="module")
def video():
    folder = FOLDER / "video_to_features"
    settings = json.loads((folder / "config.json").read_text())
    io = load_file(folder / "io.safetensors")
    config = tower_config(settings["vision"])
    return settings, io, vision_from_reference(load_file(folder / settings["weights"]), config)


def names(io, pattern):
    return sorted(name for name in io if re.fullmatch(pattern, name))


def test_resized_frames_equal_the_references_bit_by_bit(video):
    settings, io, _ = video
    stacks = names(io, r"clip\d+_uint8")
    assert stacks
    for name in stacks:
        clip, size = name.removesuffix("_uint8"), settings["image_size"]
        small = resize(jnp.asarray(channels_last(io[name])), size)
        want = channels_last(io[f"{clip}_resized_uint8"])
        np.testing.assert_array_equal(small, want, err_msg=clip)
        np.testing.assert_array_equal(pixels(small), channels_last(io[f"{clip}_pixels"]))
        if f"{clip}_float_resized" in io:
            smooth = resize(jnp.asarray(channels_last(io[name]), jnp.float32), size)
            near(smooth, channels_last(io[f"{clip}_float_resized"]))


def test_clips_become_features(video):
    settings, io, model = video
    count = len(names(io, r"clip\d+_uint8"))
    clips = [channels_last(io[f"clip{number}_uint8"]) for number in range(count)]
    assert [len(clip) for clip in clips] == settings["lengths"]
    features = encode_clips(
        model,
        clips,
        size=settings["image_size"],
        normalize=settings["normalize_feature"],
        batch_size=settings["encode_batch_size"],
    )
    longest = io["features_padded"].shape[1]
    padded = [np.pad(rows, ((0, longest - len(rows)), (0, 0))) for rows in features]
    near(np.stack(padded), io["features_padded"])


def test_the_processors_pixels_of_frames(fixtures_dir):
    io = load_file(fixtures_dir / "model" / "vision_transform.safetensors")
    got = pixels(resize(jnp.asarray(channels_last(io["frames"])), io["transformed"].shape[-1]))
    np.testing.assert_allclose(got, channels_last(io["transformed"]), atol=1e-6)
