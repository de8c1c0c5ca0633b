"""Warnings of sizes that do not fill the tiles of a chip's matrix unit."""

import dataclasses

import pytest

from sam_audio_jax import config
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import chips, printout
from sam_audio_jax.plan.tiles import misfits
from sam_audio_jax.recipes import pretraining
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.train.config import TrainConfig


def fields(dit: DitConfig, topology: str, **mesh: int) -> dict[str, tuple[int, int]]:
    found = misfits(pretraining(dit), MeshConfig(**mesh), chips.parse(topology))
    return {one.field: (one.value, one.rounded) for one in found}


DIT = DitConfig(depth=2, width=1536, heads=12, mlp=4096)


@pytest.mark.parametrize(
    ("dit", "topology", "expected"),
    [
        (DIT, "v5e:2x4", {}),
        (DIT, "v5p:2x2x2", {}),
        (DIT, "v6e:2x4", {"dit.width / heads": (128, 256)}),
        (DIT, "tpu7x:2x2x1", {"dit.width / heads": (128, 256)}),
        (dataclasses.replace(DIT, heads=6), "v6e:2x4", {}),
        (dataclasses.replace(DIT, mlp=4000), "v5e:2x4", {"dit.mlp": (4000, 4096)}),
        (
            dataclasses.replace(DIT, width=1000, heads=10),
            "v5e:2x4",
            {"dit.width": (1000, 1024), "dit.width / heads": (100, 128)},
        ),
    ],
)
def test_sizes_between_two_multiples_are_found(dit, topology, expected):
    assert fields(dit, topology) == expected


def test_what_the_mesh_splits_is_measured_on_one_chip():
    dit = dataclasses.replace(DIT, mlp=5504)  # 43 tiles
    assert fields(dit, "v5e:2x4") == {}
    assert fields(dit, "v5e:2x4", tensor=2) == {"dit.mlp": (2752, 2816)}


def test_a_warning_names_field_value_and_cost():
    dit = dataclasses.replace(DIT, mlp=2048 + 64)
    (one,) = misfits(pretraining(dit), MeshConfig(), chips.parse("v5e:2x4"))
    (line,) = printout.tile_lines([one])
    assert "dit.mlp = 2112" in line
    assert "multiple of 128" in line
    assert "2176" in line
    # Operations of a block on 750 frames and T text tokens; the feed-forward has those with 2112.
    tokens = pretraining(dit).data.prompts.text_tokens
    hidden = 3 * 750 * 1536 * 2112
    rest = 6 * 750 * 1536**2 + 2 * tokens * 1536**2 + 2 * 750 * (750 + tokens) * 1536
    assert one.cost == pytest.approx(hidden / (hidden + rest) * 64 / 2112)


def test_the_recipes_fill_the_tiles_of_v5e():
    cfg = config.from_cli(["large@v5e-256"], TrainConfig)
    assert misfits(cfg, cfg.mesh, chips.parse("v5e-256")) == []
