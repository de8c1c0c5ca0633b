import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.codec import loss
from sam_audio_jax.codec.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    SpectrumDiscriminator,
    WeightNormConv2d,
    normalise,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs

TINY = DiscriminatorConfig(
    periods=(2, 3), period_widths=(4, 8), windows=(128,), window_width=4, bands=(0.0, 0.5, 1.0)
)


def path_of(name):
    """The path here of a parameter of the reference."""
    parts = {"weight_v": "direction", "weight_g": "scale", "bias": "bias"}
    critic, *rest, kind = name.removeprefix("discriminators.").split(".")
    period = int(critic) < 5
    layers = [int(number) for number in rest if number.isdigit()]
    match rest[0]:
        case "conv_post":
            inner = ["logits"]
        case "convs":
            inner = ["convs", layers[0]]
        case "band_convs":
            inner = ["bands", layers[0], layers[1]]
        case other:
            raise AssertionError(other)
    return ["periods" if period else "spectra", int(critic) % 5, *inner, parts[kind]]


def formula_weights(shapes):
    """The weights of the fixture, by the formula that the fixture was made with."""
    for order, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        value = np.sin(0.7 * np.arange(np.prod(shape, dtype=int)) + 0.31 * order)
        if name.endswith("weight_g"):
            value = 1 + 0.3 * value
        elif name.endswith("bias"):
            value = 0.05 * value
        value = value.astype(np.float32).reshape(shape)
        if name.endswith("weight_v"):
            value = value.transpose(2, 3, 1, 0)
        yield name, value.reshape(-1) if name.endswith("weight_g") else value


@pytest.fixture(scope="module")
def case(fixtures_dir):
    """Reference numbers and tensors, and ours of a pass at full size: maps of the fake, losses."""
    folder = fixtures_dir / "codec"
    numbers = json.loads((folder / "losses.json").read_text())
    tensors = load_file(folder / "losses.safetensors")
    graph, state = nnx.split(
        nnx.eval_shape(lambda: Discriminator(DiscriminatorConfig(), rngs=Rngs(0)))
    )
    params = nnx.as_pure(state)
    abstract = jax.tree.leaves(params)
    assert len(abstract) == len(numbers["disc_names"])
    assert sum(leaf.size for leaf in abstract) == numbers["disc_params"]
    for name, value in formula_weights(numbers["disc_names"]):
        *path, last = path_of(name)
        leaf = params
        for step in path:
            leaf = leaf[step]
        assert leaf[last].shape == value.shape, name
        leaf[last] = jnp.asarray(value)

    @jax.jit
    def evaluate(params, wave, other):
        maps = nnx.merge(graph, params)(jnp.concatenate([wave, other]))
        real = [[each[: len(wave)] for each in critic] for critic in maps]
        fake = [[each[len(wave) :] for each in critic] for critic in maps]
        losses = {
            "disc_loss": loss.discriminator_loss(real, fake),
            "gen_loss": loss.adversarial_loss(fake),
            "feat_loss": loss.feature_matching_loss(real, fake),
        }
        return fake, losses

    fake, losses = jax.device_get(evaluate(params, tensors["real"][:, 0], tensors["fake"][:, 0]))
    return numbers, tensors, fake, losses


@pytest.mark.golden
def test_every_map_has_the_reference_shape_mean_and_deviation(case):
    numbers, _, fake, _ = case
    assert [len(critic) for critic in fake] == [len(critic) for critic in numbers["fmap_shapes"]]
    for number, critic in enumerate(fake):
        for layer, ours in enumerate(critic):
            shape = ours.transpose(0, 3, 1, 2).shape
            at = f"critic {number} layer {layer}"
            assert list(shape) == numbers["fmap_shapes"][number][layer], at
            mean, deviation = (numbers[f"fmap_{name}"][number][layer] for name in ("mean", "std"))
            # The formula's weights almost cancel in the logits of period 2.
            close = {"atol": 1e-3 * (abs(mean) + deviation), "rtol": 0, "err_msg": at}
            np.testing.assert_allclose(np.mean(ours), mean, **close)
            np.testing.assert_allclose(np.std(ours), deviation, **close)


@pytest.mark.golden
def test_logits_equal_the_reference(case):
    _, tensors, fake, _ = case
    names = sorted(name for name in tensors if re.fullmatch(r"logits_fake_\d+", name))
    assert len(names) == len(fake)
    for name, critic in zip(names, fake, strict=True):
        ours, theirs = critic[-1].transpose(0, 3, 1, 2), tensors[name]
        assert np.abs(ours - theirs).max() < 3e-4 * np.abs(theirs).max(), name


@pytest.mark.golden
def test_adversarial_losses_equal_the_reference(case):
    numbers, _, _, losses = case
    for name, ours in losses.items():
        np.testing.assert_allclose(ours, numbers[name], rtol=1e-4, err_msg=name)


@pytest.mark.golden
def test_discriminator_input_equals_the_reference(case):
    _, tensors, _, _ = case
    ours = normalise(jnp.asarray(tensors["fake"][:, 0]))
    np.testing.assert_allclose(ours, tensors["disc_input_fake"][:, 0], atol=1e-6)


@pytest.mark.golden
def test_bands_equal_the_reference(case):
    _, tensors, _, _ = case
    wave = jnp.asarray(tensors["disc_input_fake"][:, 0])
    names = sorted(name for name in tensors if re.fullmatch(r"mrd\d+_band_\d+", name))
    (window,) = {int(re.match(r"mrd(\d+)", name)[1]) for name in names}
    config = DiscriminatorConfig(window_width=1)
    critic = nnx.eval_shape(lambda: SpectrumDiscriminator(window, config, rngs=Rngs(0)))
    for name, ours in zip(names, critic.split(wave), strict=True):
        theirs = tensors[name].transpose(0, 2, 3, 1)
        assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max(), name


def shapes(wave):
    critics = Discriminator(TINY, rngs=Rngs(0))
    return critics(wave), critics.spectra[0].split(wave)


@pytest.mark.parametrize("samples", [512, 600, 999])
def test_any_length_is_folded_and_framed(samples):
    critics, bands = jax.eval_shape(shapes, jax.ShapeDtypeStruct((1, samples), jnp.float32))
    frames = -(-samples // 32)
    assert [band.shape for band in bands] == [(1, frames, 32, 2), (1, frames, 33, 2)]
    for period, maps in zip(TINY.periods, critics, strict=False):
        folded = samples // period + 1
        assert maps[0].shape == (1, -(-folded // 3), period, 4)


def test_level_and_offset_of_a_wave_do_not_matter():
    wave = jax.random.normal(jax.random.key(0), (2, 512))
    np.testing.assert_allclose(normalise(3 * wave + 0.5), normalise(0.01 * wave), atol=1e-5)
    np.testing.assert_allclose(jnp.abs(normalise(wave)).max(axis=1), 0.8, rtol=1e-6)


def test_a_fresh_kernel_is_its_direction():
    conv = WeightNormConv2d(2, 4, (5, 1), rngs=Rngs(0))
    length = np.linalg.norm(np.asarray(conv.direction[...]).reshape(-1, 4), axis=0)
    np.testing.assert_allclose(conv.scale[...], length, rtol=1e-6)


def test_a_wave_shorter_than_a_window_is_refused():
    with pytest.raises(UserError, match="48 samples is too short for a discriminator window"):
        jax.eval_shape(shapes, jax.ShapeDtypeStruct((1, 48), jnp.float32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"periods": (), "windows": ()}, "both empty"),
        ({"periods": (0,)}, "periods"),
        ({"windows": (30,)}, "multiples of 4"),
        ({"window_width": 0}, "window_width"),
        ({"bands": (0.0, 0.001, 1.0)}, "empty"),
    ],
)
def test_impossible_sizes_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        DiscriminatorConfig(**fields)
