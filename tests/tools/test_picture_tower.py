"""A tower learns to tell two pictures apart, and a model that holds it looks at masked video."""

import json

import numpy as np
import pytest
from PIL import Image

from sam_audio_jax.convert.load import convert, load_extras
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.infer.video_prompts import stored_tower
from sam_audio_jax.nn.rngs import Rngs
from tests import tiny, tower_model
from tools import picture_tower
from tools.picture_tower import Looks, PictureTower

# Two classes: the words of one are in the first number, of the other in the second.
VECTORS = np.eye(2, 6, dtype=np.float32)


@pytest.fixture
def looks(tmp_path, monkeypatch) -> Looks:
    monkeypatch.setattr(picture_tower, "BATCH", 8)
    monkeypatch.setattr(picture_tower, "LOOKS", 64)
    paths = []
    for name in ("red", "blue"):
        Image.new("RGBA", (20, 20), name).save(tmp_path / f"{name}.png")
        paths.append(tmp_path / f"{name}.png")
    return Looks(paths, (0, 1), seed=0)


def test_after_some_updates_the_pictures_are_found_by_their_words(looks):
    sizes = VisionConfig(
        image_size=16, patch_size=8, width=16, depth=1, heads=2, mlp=24, output=4, pool_heads=2
    )
    tower = PictureTower(sizes, VECTORS.shape[1], rngs=Rngs(0))
    trained = picture_tower.train(tower, looks, VECTORS, steps=60)
    assert picture_tower.found_share(trained, looks, VECTORS) > 0.75  # some are hidden


def test_a_look_shows_an_object_on_black_in_several_colours(looks):
    batch = looks.batch(32)
    assert batch["frames"].shape == (32, 96, 96, 3)
    assert set(batch["caption"]) == {0, 1}
    for frame, number in zip(batch["frames"], batch["caption"], strict=True):
        shown = frame[frame.max(axis=-1) > 100]
        assert len(shown) < 96 * 96 / 2
        if len(shown) > 100:  # the other object may hide it
            assert np.mean(shown.argmax(axis=-1) == (0, 2)[number]) > 0.8
    brightest = batch["frames"].max(axis=(1, 2, 3))
    assert len(set(brightest.tolist())) > 5


def test_a_model_gets_the_tower_with_its_sizes(tmp_path):
    """Put into a model by the tool, and from there into another one by `convert --tower`."""
    model = tower_model.write_model(tmp_path / "model")
    sizes = VisionConfig(
        image_size=16, patch_size=8, width=8, depth=1, heads=1, mlp=12, output=4, pool_heads=2
    )
    tower = tiny.filled(lambda: VisionEncoder(sizes, rngs=Rngs(0)))
    picture_tower.save(tower, str(model), tmp_path / "with tower")
    convert(str(model), str(tmp_path / "other"), tower=str(tmp_path / "with tower"))
    for folder in ("with tower", "other"):
        stored = stored_tower(load_extras(str(tmp_path / folder)))
        assert stored is not None
        loaded = stored.load()
        assert loaded.config == sizes
        np.testing.assert_array_equal(loaded.positions[...], tower.positions[...])


def test_a_tower_of_the_released_size_leaves_no_other_sizes_behind(tmp_path):
    model = tower_model.write_model(tmp_path / "model")
    settings = tmp_path / "model" / "sam_audio_jax.json"
    content = json.loads(settings.read_text())
    released = tmp_path / "released"
    convert(str(model), str(released))
    del content["vision"]
    (released / "sam_audio_jax.json").write_text(json.dumps(content))
    convert(str(model), str(tmp_path / "other"), tower=str(released))
    assert "vision" not in json.loads((tmp_path / "other" / "sam_audio_jax.json").read_text())
