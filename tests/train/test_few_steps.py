"""Fine-tuning for few steps: from an old model, with rows of both objectives."""

import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.folder import load_folder, save_folder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.flow import FlowConfig
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train.frozen import load_start
from sam_audio_jax.train.objective import make_separator_training
from tests.tiny import filled
from tests.train.batches import FRAMES, random_batch

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
DIT = dataclasses.replace(TINY.separator.dit, step_size=True)
FEW = dataclasses.replace(
    TINY,
    separator=dataclasses.replace(TINY.separator, dit=DIT),
    flow=FlowConfig(consistency_share=0.25),
)


def batch():
    return random_batch(FRAMES, TINY.codec.codebook_dim)


@pytest.mark.long
def test_an_old_model_is_fine_tuned_for_few_steps_and_kept(tmp_path):
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    old = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    save_folder(tmp_path / "old", codec, old, "byt5")
    config = dataclasses.replace(FEW, init_from=str(tmp_path / "old"))
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    start, step, weights = make_separator_training(config, codec, mesh, load_start(config))
    kernel = start.params["separator"]["project"]["kernel"]
    np.testing.assert_array_equal(kernel, old.separator.project.kernel[...])
    down = start.params["separator"]["dit"]["step_size"]["project"]["down"]["kernel"]
    assert not down.any()

    step, state, losses = jax.jit(step), start, []
    for _ in range(40):
        state, metrics = step(state, batch(), weights)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(metrics["consistency"])
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])
    change = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()),
        start.params["separator"]["dit"]["step_size"],
        state.params["separator"]["dit"]["step_size"],
    )
    assert min(jax.tree.leaves(change)) > 0

    tuned = nnx.merge(nnx.graphdef(_abstract(config)), state.params)
    save_folder(tmp_path / "new", codec, tuned, "byt5")
    again = load_folder(tmp_path / "new")[1]
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), nnx.state(tuned), nnx.state(again))
    assert all(jax.tree.leaves(equal))
    with pytest.raises(UserError, match="which upstream's code does not have"):
        save_folder(tmp_path / "upstream", codec, tuned, "byt5", fold=True)


def _abstract(config):
    make = lambda: PromptedSeparator(config.text, config.separator, rngs=Rngs(0))  # noqa: E731
    return nnx.eval_shape(make)


def test_self_consistency_needs_a_network_that_knows_its_step():
    with pytest.raises(UserError, match=r"needs a network .* separator.dit.step_size=True"):
        dataclasses.replace(TINY, flow=FlowConfig(consistency_share=0.25))
    with pytest.raises(UserError, match="finest_steps=12 must be a power of two"):
        FlowConfig(finest_steps=12)
