"""Anchors on the frame grid, against `processor.json`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.codec.codec import frame_count
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.processor import anchor_slots
from sam_audio_jax.separator.prompts import (
    Conditions,
    batch_anchors,
    frame_anchors,
    valid_frames,
)

GRID = {"sample_rate": 48_000, "hop": 1920}


@pytest.mark.golden
def test_sizes_masks_and_anchors_of_the_reference(fixtures_dir):
    facts = json.loads((fixtures_dir / "model" / "processor.json").read_text())
    grid = {"sample_rate": facts["sample_rate"], "hop": facts["hop"]}
    for case in facts["anchors"]:
        sizes = [frame_count(size, grid["hop"]) for size in case["wav_sizes"]]
        assert sizes == case["sizes"]
        np.testing.assert_array_equal(valid_frames(sizes), case["pad_mask"])
        spans = case["anchors"]
        if spans is not None:
            spans = [[tuple(span) for span in row] for row in spans]
        ids, alignment = anchor_slots(spans, sizes, **grid)
        np.testing.assert_array_equal(ids, case["anchor_ids"])
        np.testing.assert_array_equal(alignment, case["anchor_alignment"])
        anchors = batch_anchors(spans or [[] for _ in sizes], sizes, **grid)
        np.testing.assert_array_equal(anchors, np.take_along_axis(ids, alignment, axis=1))


def test_anchors_are_padded_after_each_item():
    anchors = batch_anchors([[("+", 0.0, 0.1)], []], [5, 3], **GRID, frames=8)
    np.testing.assert_array_equal(anchors, [[1, 1, 1, 0, 0, 3, 3, 3], [0, 0, 0, 3, 3, 3, 3, 3]])


def test_anchors_of_a_range_of_frames_are_those_of_the_whole():
    spans = [("+", 0.02, 0.2), ("-", 0.1, 0.15)]
    whole = frame_anchors(spans, 0, 12, **GRID)
    for start, stop in ((0, 12), (2, 9), (7, 7), (11, 12)):
        np.testing.assert_array_equal(frame_anchors(spans, start, stop, **GRID), whole[start:stop])


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([("*", 0.0, 1.0)], "'\\*' is unknown"),
        ([("+", -0.1, 1.0)], "at or after 0 s"),
        ([("+", 0.1, float("nan"))], "at or after 0 s"),
    ],
)
def test_bad_spans_are_the_users_error(spans, message):
    with pytest.raises(UserError, match=message):
        frame_anchors(spans, 0, 5, **GRID)


def test_every_item_needs_its_spans():
    with pytest.raises(UserError, match="2 items were given with 1 audios"):
        anchor_slots([[], []], [5], **GRID)


def test_conditions_are_a_pytree_without_absent_prompts():
    conditions = Conditions(mixture=jnp.ones((1, 2, 3)), valid=jnp.ones((1, 2), bool))
    assert len(jax.tree.leaves(conditions)) == 2
    assert jax.tree.map(jnp.zeros_like, conditions).text is None
