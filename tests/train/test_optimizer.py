import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import PromptedSeparator, SeparatorConfig
from sam_audio_jax.train.config import OptimConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer, rate_of


def shapes():
    text = T5Config(vocab_size=16, width=8, head_dim=4, heads=2, mlp=8, depth=2)
    dit = DitConfig(depth=2, width=8, heads=2, mlp=8)
    sizes = SeparatorConfig(dit=dit, channels=4, text_width=8, video_width=4, anchor_width=4)
    model = nnx.eval_shape(lambda: PromptedSeparator(text, sizes, rngs=Rngs(0)))
    return nnx.as_pure(nnx.state(model))


def test_exactly_the_kernels_decay():
    mask = jax.tree_util.tree_leaves_with_path(decay_mask(shapes()))
    for path, decays in mask:
        assert decays == (str(path[-1].key) == "kernel"), jax.tree_util.keystr(path)
    assert sum(decays for _, decays in mask) > 20


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (4, 0.5), (9, 1.0), (500, 1.0)])
def test_the_rate_warms_up_and_stays(step, rate):
    np.testing.assert_allclose(rate_of(jnp.int32(step), 1.0, 10), rate, rtol=1e-6)


def test_frozen_parts_get_no_update_and_no_moments():
    params = {"text_encoder": {"kernel": jnp.ones((2, 2))}, "separator": {"kernel": jnp.ones(3)}}
    config = OptimConfig(warmup_steps=0)
    tx = make_optimizer(config, constant_schedule(config), decay_mask, frozen=("text_encoder",))
    moments = tx.init(params)
    updates, _ = tx.update(params, moments, params)
    assert not np.any(updates["text_encoder"]["kernel"])
    assert np.all(updates["separator"]["kernel"] < 0)
    assert all(np.shape(leaf) in ((), (3,)) for leaf in jax.tree.leaves(moments))
