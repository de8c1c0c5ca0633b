"""Every hidden state of a PEAV transformer by its name in the reference, for golden tests."""

import jax
import jax.numpy as jnp
from flax import nnx

from sam_audio_jax.encoders.peav import Peav


def peav_states(peav: Peav, frames, valid) -> dict:
    """Returns the states that a pass over `frames` `[batch, frames, width]` goes through."""
    graph, blocks = nnx.split(peav.blocks)
    x, tokens_valid = peav.with_class(frames, valid)
    first = peav.patcher.first(x, tokens_valid)
    second = peav.patcher.second(first, tokens_valid)
    states = {"resnet.block1": jnp.swapaxes(first, 1, 2)}
    states |= {"resnet.block2": jnp.swapaxes(second, 1, 2)}
    states["embeddings"] = x + second
    angle = peav.angles(x.shape[1])

    def body(x, weights):
        block = nnx.merge(graph, weights)
        attended = block.attention(block.attention_norm(x), mask=tokens_valid, angle=angle)
        x = block(x, valid=tokens_valid, angle=angle)
        return x, (attended, x)

    x, layers = jax.lax.scan(body, states["embeddings"], nnx.as_pure(blocks))
    for i, (attended, state) in enumerate(zip(*layers, strict=True)):
        states |= {f"layer{i}.self_attn": attended, f"layer{i}": state}
    states["norm"] = peav.norm(x)
    states["output"] = peav.out(states["norm"])
    return states
