"""One velocity evaluation for every case of `forward.safetensors`, and what happens inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.nn import rope
from sam_audio_jax.nn.embed import sinusoid
from sam_audio_jax.separator.prompts import Conditions

pytestmark = pytest.mark.golden
WANTED = {"atol": 2e-4, "rtol": 0}  # promised; seen: 5e-6

# Which prompts each case gives (the README of the fixtures).
TEXT = {"text": True, "text_mask": True}
FULL = {**TEXT, "video": "zeros", "anchors": "null", "valid": True}
CASES = {
    "minimal": {"text": True},
    "no_text": {},
    "text": FULL,
    "text_nopad": {**FULL, "valid": False, "anchors": "nopad"},
    "span": {**FULL, "anchors": "span"},
    "video": {**FULL, "video": "given"},
    "all": {**FULL, "video": "given", "anchors": "span"},
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
        video={None: None, "zeros": 0 * video, "given": video}[has.get("video")],
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
    np.testing.assert_allclose(got, io[f"{case}/out"], **WANTED)
    assert jnp.abs(got - io[f"{case}/out"]).max() < 2e-5


def test_traces_of_the_case_with_everything(golden, io):
    given = conditions(golden, io, "all")
    got = jax.jit(lambda *inputs: traces(golden, *inputs))(
        io["in/noisy_audio"], io["in/time"], given
    )
    for name, value in got.items():
        np.testing.assert_allclose(value, io[f"all/trace/{name}"], **WANTED, err_msg=name)


def traces(golden, noisy, time, given):
    """The model's steps one by one, under the reference's names."""
    separator, dit = golden.separator, golden.separator.dit
    seen = {}
    x = seen["proj"] = separator.project.state(noisy) + separator.project.mixture(given.mixture)
    x = seen["after_video"] = x + separator.align_video(given.video)
    x = x + separator.embed_anchors(given.anchors)
    seen["after_anchors"] = x
    memory = seen["memory_proj"] = separator.project_text(given.text)
    memory = dit.context(memory + sinusoid(time, separator.config.dit.width)[:, None])
    seen["y"] = memory
    seen["t"], rows = dit.time(time)
    seen["t0"] = rows.reshape(rows.shape[0], -1)
    x = dit.patcher(x)
    seen["x_embedder_bcl"] = x.transpose(0, 2, 1)
    angle = rope.angles(x.shape[1], separator.config.dit.head_dim, separator.config.dit.theta)
    for layer in range(separator.config.dit.depth):
        masks = {"valid": given.valid, "memory_mask": given.text_mask}
        x = golden.block(layer)(x, rows, memory, **masks, angle=angle, key=None)
        seen[f"layer{layer}"] = x
    return seen
