"""Groups are few, hold every item once, and depend on nothing but the lengths."""

import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.buckets import BucketConfig, group, padded
from sam_audio_jax.nn.call import power_of_two


def test_few_lengths_are_not_padded():
    groups = group([200, 90, 200, 200, 90], BucketConfig())
    assert [(part.frames, part.rows, part.items) for part in groups] == [
        (90, 2, (1, 4)),
        (200, 4, (0, 2, 3)),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_many_lengths_make_few_shapes(seed):
    lengths = np.random.default_rng(seed).integers(1, 10_000, 500).tolist()
    config = BucketConfig()
    groups = group(lengths, config)
    assert sorted(item for part in groups for item in part.items) == list(range(500))
    for part in groups:
        longest = max(lengths[item] for item in part.items)
        assert longest <= part.frames
        assert len(part.items) <= part.rows <= config.batch
        assert part.rows * part.frames <= config.batch_frames or part.rows == 1
        if longest > 25:
            assert part.frames < 1.25 * min(lengths[item] for item in part.items)
    assert len({part.frames for part in groups}) <= 34
    assert len({(part.frames, part.rows) for part in groups}) <= 34 * 4


def test_padding_depends_on_the_item_alone():
    config = BucketConfig(exact=0)
    alone = [group([length], config)[0].frames for length in (30, 31, 700)]
    together = group([30, 31, 700], config)
    assert sorted(set(alone)) == [part.frames for part in together]


def test_configured_sizes_come_first():
    config = BucketConfig(sizes=(50, 100), growth=2.0)
    assert [padded(length, config) for length in (1, 50, 51, 100, 101, 399)] == [
        *(50, 50, 100, 100, 200, 400)
    ]


def test_rows_are_shared_out_over_devices():
    groups = group([100] * 13, BucketConfig(), shards=6)
    assert [part.rows for part in groups] == [6, 6, 6]
    assert [len(part.items) for part in groups] == [6, 6, 1]


def test_powers_of_two():
    assert [power_of_two(count, least=4) for count in (0, 4, 5, 8, 9)] == [4, 4, 8, 8, 16]


def test_refuses_impossible_settings():
    with pytest.raises(UserError, match=r"growth=1\.0 must be a finite number above 1"):
        BucketConfig(growth=1.0)
    with pytest.raises(UserError, match="must be positive and rise"):
        BucketConfig(sizes=(10, 5))
