"""One velocity evaluation for every case of `forward.safetensors`, and what happens inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.nn import rope
from sam_audio_jax.nn.embed import sinusoid
from sam_audio_jax.separator.prompts import Conditions

pytestmark = pytest.mark.golden
TOLERANCE = {"atol": 2e-4, "rtol": 0}  # promised; measured: 5e-6

# The prompts of each case (the README of the fixtures).
TEXT = {"text": True, "text_mask": True}
FULL = {**TEXT, "video": "zeros", "anchors": "null", "valid": True}
CASES = {
    "minimal": {"text": True},
    "no_text": {},
    "text": FULL,
    "text_nopad": {**FULL, "valid": False, "anchors": "nopad"},
    "span": {**FULL, "anchors": "span"},
    "video": {**FULL, "video": "features"},
    "all": {**FULL, "video": "features", "anchors": "span"},
}


@pytest.fixture(scope="module")
def io(golden):
    return golden.numbers("forward")


def conditions(golden, io, case: str) -> Conditions:
    has = CASES[case]
    video = io["in/video"].transpose(0, 2, 1)
    anchors = {
        None: None,
        "null": gathered(io["in/null_ids"], io["in/null_alignment"]),
        "nopad": gathered(io["in/null_ids"], jnp.zeros_like(io["in/null_alignment"])),
        "span": gathered(io["in/span_ids"], io["in/span_alignment"]),
    }[has.get("anchors")]
    return Conditions(
        mixture=one_copy(golden, io["in/audio_features"]),
        text=io["in/text_features"] if has.get("text") else None,
        text_mask=io["in/text_mask"].astype(bool) if has.get("text_mask") else None,
        video={None: None, "zeros": 0 * video, "features": video}[has.get("video")],
        anchors=anchors,
        valid=io["in/pad_mask"].astype(bool) if has.get("valid") else None,
    )


def gathered(ids, alignment):
    """The anchor of each frame, from the reference's slots."""
    return jnp.take_along_axis(ids, alignment, axis=1)


def one_copy(golden, features):
    """The reference's `[z, z]`."""
    first, second = jnp.split(features, 2, axis=-1)
    np.testing.assert_array_equal(first, second)
    return first


def test_every_case_is_known(io):
    assert {name.split("/")[0] for name in io if name.endswith("/out")} <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_velocity(golden, io, case):
    if f"{case}/out" not in io:
        pytest.skip("not in these fixtures")
    got = jax.jit(lambda *inputs: golden.separator(*inputs))(
        io["in/noisy_audio"], io["in/time"], conditions(golden, io, case)
    )
    np.testing.assert_allclose(got, io[f"{case}/out"], **TOLERANCE)
    assert jnp.abs(got - io[f"{case}/out"]).max() < 2e-5


def test_traces_of_the_case_with_everything(golden, io):
    got = jax.jit(lambda *inputs: traces(golden, *inputs))(
        io["in/noisy_audio"], io["in/time"], conditions(golden, io, "all")
    )
    for name, value in got.items():
        np.testing.assert_allclose(value, io[f"all/trace/{name}"], **TOLERANCE, err_msg=name)


def traces(golden, noisy, time, prompts):
    """The model's steps one by one, under the reference's names."""
    separator, dit = golden.separator, golden.separator.dit
    seen = {}
    x = seen["proj"] = separator.project.state(noisy) + separator.project.mixture(prompts.mixture)
    x = seen["after_video"] = x + separator.align_video(prompts.video)
    x = x + separator.embed_anchors(prompts.anchors)
    seen["after_anchors"] = x
    memory = seen["memory_proj"] = separator.project_text(prompts.text)
    memory = memory + sinusoid(time, separator.config.dit.width)[:, None]
    memory = seen["y"] = golden.context(memory)
    seen["t"], rows = dit.time(time)
    seen["t0"] = rows.reshape(rows.shape[0], -1)
    x = dit.patcher(x)
    seen["x_embedder_bcl"] = x.transpose(0, 2, 1)
    angle = rope.angles(x.shape[1], separator.config.dit.head_dim, separator.config.dit.theta)
    for layer in range(separator.config.dit.depth):
        masks = {"valid": prompts.valid, "memory_mask": prompts.text_mask}
        x = golden.block(layer)(x, rows, memory, **masks, angle=angle, key=None)
        seen[f"layer{layer}"] = x
    return seen
