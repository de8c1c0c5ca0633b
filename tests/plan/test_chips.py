"""Names of slices, and how fast their links are."""

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.plan import chips


@pytest.mark.parametrize(
    ("name", "same", "count"),
    [
        ("v5e:16x16", "v5e:16x16", 256),
        ("v5e-256", "v5e:16x16", 256),
        ("v5litepod-8", "v5e:2x4", 8),
        ("v5p-512", "v5p:4x8x8", 256),
        ("v6e-256", "v6e:16x16", 256),
    ],
)
def test_names_of_a_slice(name, same, count):
    parsed = chips.parse(name)
    assert (parsed.name, parsed.chips) == (same, count)


def test_a_mesh_has_two_devices_on_each_chip_of_tpu7x():
    parsed = chips.parse("tpu7x:2x2x1")
    assert (parsed.chips, parsed.size) == (4, 8)
    assert chips.parse("v5p-512").size == 256


def test_published_figures():
    known = {name: chip.published.mfu for name, chip in chips.CHIPS.items() if chip.published}
    assert known == {"v5e": 0.669, "v5p": 0.715, "v6e": 0.503}


@pytest.mark.parametrize(
    "name",
    ["tpu7x-8", "tpu7x:2x2", "v5e", "v5e-7", "v5e:4x4x4", "v9e:2x2", "v5p:4x4", "v5e:0x4", ""],
)
def test_what_is_no_slice_is_refused(name):
    with pytest.raises(UserError):
        chips.parse(name)


@pytest.mark.parametrize(
    ("name", "side", "ring"),
    [
        ("v5e:16x16", 16, True),
        ("v5e:8x16", 8, False),
        ("v5e:8x16", 16, True),
        ("v5p:4x4x4", 4, True),
        ("v5p:4x8x8", 4, True),
        ("v5p:2x4x4", 4, False),  # less than a cube: a mesh
        ("v5p:2x2x4", 4, False),
    ],
)
def test_which_dimensions_close_to_rings(name, side, ring):
    assert chips.parse(name).is_ring(side) == ring


def test_rings_work_both_ways():
    slice_ = chips.parse("v5e:16x16")
    assert slice_.ring_rate(1, 1) == 2 * slice_.ring_rate(1, 0)
    assert slice_.ring_rate(2, 2) == 2 * slice_.ring_rate(1, 1)
