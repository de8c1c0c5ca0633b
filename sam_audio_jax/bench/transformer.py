"""The transformer of `small` with random weights: its forward pass and its training step.

arXiv 2512.18099, table 12 for the sizes. The weights are float32, and so are all products.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import PyTree

from sam_audio_jax.bench.weights import random_network
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.flow import FlowConfig, flow_loss
from sam_audio_jax.separator.model import Separator, SeparatorConfig
from sam_audio_jax.separator.prompts import Conditions

FRAMES = 250  # 10 s
TOKENS = 32  # of the text
SMALL = DitConfig(depth=12, width=1536, heads=12, mlp=4096, dropout=0.0, dtype="float32")

Call = tuple[Callable[..., Any], tuple]  # a compiled function and its arguments


def random_conditions(config: SeparatorConfig) -> Conditions:
    """Returns random conditions of one mixture: every frame valid, no span, video and text."""
    keys = iter(jax.random.split(jax.random.key(1), 3))

    def draw(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), (1, *shape))

    return Conditions(
        mixture=draw(FRAMES, config.channels),
        text=draw(TOKENS, config.text_width),
        text_mask=jnp.ones((1, TOKENS), bool),
        video=draw(FRAMES, config.video_width),
        anchors=jnp.zeros((1, FRAMES), jnp.int32),
        valid=jnp.ones((1, FRAMES), bool),
    )


def random_latents(config: SeparatorConfig) -> jax.Array:
    """Returns normal latents of target and residual, [1, FRAMES, 2 * channels]."""
    return jax.random.normal(jax.random.key(2), (1, FRAMES, 2 * config.channels))


def separator(depth: int) -> Separator:
    """Builds the separator with `depth` layers, for `nnx.eval_shape` or with random weights."""
    config = SeparatorConfig(dit=dataclasses.replace(SMALL, depth=depth))
    return Separator(config, rngs=Rngs(0))


def forward_inputs() -> tuple[jax.Array, jax.Array, Conditions]:
    """Returns latents, flow time and conditions of one evaluation of the velocity."""
    config = SeparatorConfig(dit=SMALL)
    return random_latents(config), jnp.array([0.5]), random_conditions(config)


def train(depth: int) -> Call:
    """Returns one step of AdamW on the flow loss with `depth` layers."""
    network = random_network(lambda: separator(depth))
    graph, state = nnx.split(network)
    state, config = nnx.as_pure(state), network.config
    tx = optax.adamw(1e-4)
    conditions = random_conditions(config)
    latents = random_latents(config)
    every_frame = jnp.ones((1, FRAMES), bool)

    @jax.jit
    def step(state: PyTree, moments: optax.OptState) -> tuple[PyTree, optax.OptState]:
        def loss(state: PyTree) -> jax.Array:
            network = nnx.merge(graph, state)

            def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
                return network(x, t, conditions)

            return flow_loss(velocity, latents, every_frame, jax.random.key(3), FlowConfig())

        updates, moments = tx.update(jax.grad(loss)(state), moments, state)
        return optax.apply_updates(state, updates), moments

    return step, (state, jax.jit(tx.init)(state))
