"""A table traces its network once, and nobody changes what others get of it."""

from flax import nnx

from sam_audio_jax.codec.folded import folded
from sam_audio_jax.convert.codec import codec_table
from sam_audio_jax.convert.names import parameters
from tests.tiny import CODEC


def test_a_network_is_traced_once_and_each_caller_has_its_own(monkeypatch):
    names = list(parameters(codec_table(CODEC).abstract))
    monkeypatch.setattr(nnx, "eval_shape", lambda make: 1 / 0)
    folded(codec_table(CODEC).abstract)  # in place
    assert list(parameters(codec_table(CODEC).abstract)) == names
