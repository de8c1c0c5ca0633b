"""Where a judge that is trained has its weights from: another judge, PE-A-Frame, a codec, or none.

Its text model may also start from word vectors.

Which parts come from where: docs/scoring.md, "Training a judge".
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from sam_audio_jax import parallel
from sam_audio_jax.config import misfit
from sam_audio_jax.convert.judge import load_judge, open_judge
from sam_audio_jax.convert.load import load_codec
from sam_audio_jax.convert.pe_a_frame import load_span_predictor
from sam_audio_jax.convert.word_vectors import find_word_vectors, read_word_vectors
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.judge import Judge
from sam_audio_jax.train.config import JudgeTrainConfig

Path = tuple[Any, ...]  # of a parameter in a network
CODEC_SIZES = ("sample_rate", "encoder_dim", "encoder_rates")
PEAV_SIZES = ("depth", "width", "heads", "mlp", "norm_eps", "max_positions")
TEXT_SIZES = (
    *("vocab_size", "width", "depth", "heads", "mlp", "window", "global_every"),
    *("global_theta", "local_theta", "eps"),
)


def initial_judge(
    config: JudgeTrainConfig,
    mean: Float[np.ndarray, " axes"],
    std: Float[np.ndarray, " axes"],
    mesh: Mesh | None = None,
) -> Judge:
    """The judge at step 0, sharded over the mesh; `mean` and `std` are those of the ratings.

    One that starts from another judge keeps that one's, unless the config says `rescale`. Raises
    `UserError` for weights of other sizes than the config's.
    """
    if config.init_from:
        start, _ = load_judge(config.init_from, mesh=mesh)
        _check(config, f"init_from={config.init_from}", start.config)
        graph = nnx.graphdef(nnx.eval_shape(lambda: _random(config)))
        judge = nnx.merge(graph, nnx.as_pure(nnx.state(start)))
        trained: dict[Path, Array] = {}
    else:
        judge = parallel.init_sharded(lambda: _random(config), mesh)
        trained = _trained_parts(config) | _vectors(config)
    if config.rescale or not config.init_from:
        trained["mean",] = jnp.asarray(mean, jnp.float32)
        trained["std",] = jnp.asarray(std, jnp.float32)
    return _with(judge, trained)


def with_tokenizer(config: JudgeTrainConfig) -> JudgeTrainConfig:
    """The config with the tokenizer of the judge that it starts from, unless it names one.

    Raises `UserError` where neither is named.
    """
    if config.data.tokenizer:
        return config
    if not config.init_from:
        raise UserError("data.tokenizer is empty: name a tokenizer, or a judge with --init-from")
    tokenizer = open_judge(config.init_from).tokenizer
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=tokenizer))


def _with(judge: Judge, trained: dict[Path, Array]) -> Judge:
    """The judge with other values of some parameters, sharded as they were."""
    flat = []
    for path, variable in nnx.to_flat_state(nnx.state(judge)):
        if path in trained:
            value = jax.device_put(trained[path], variable[...].sharding)
            variable = variable.replace(value)
        flat.append((path, variable))
    return nnx.merge(nnx.graphdef(judge), nnx.from_flat_state(flat))


def _random(config: JudgeTrainConfig) -> Judge:
    return Judge(config.judge, rngs=Rngs(config.seed))


def _trained_parts(config: JudgeTrainConfig) -> dict[Path, Array]:
    """Weights of parts of the judge that were trained elsewhere, by their paths."""
    if config.encoders_from:
        spans, _ = load_span_predictor(config.encoders_from, waves=True)
        _check(config, f"encoders_from={config.encoders_from}", spans.config)
        parts = ("wave_encoder", "project", "audio", "text")
        return _with_weight_norm({p: v for p, v in _weights(spans).items() if p[0] in parts})
    if config.codec_from:
        codec = load_codec(config.codec_from)
        named, wanted = f"codec_from={config.codec_from}", config.judge
        wrong = [misfit(wanted, codec.config, (*CODEC_SIZES, "latent_dim"))]
        if codec.config.codebook_dim != wanted.channels:
            wrong.append(f"channels {codec.config.codebook_dim} instead of {wanted.channels}")
        if any(wrong):
            raise UserError(f"{named} has {'; '.join(filter(None, wrong))}")
        parts = ("encoder", "in_proj")
        return {("wave_encoder", *p): v for p, v in _weights(codec).items() if p[0] in parts}
    return {}


def _vectors(config: JudgeTrainConfig) -> dict[Path, Array]:
    """The embeddings of the text model: word vectors, in the directions in which they vary most."""
    if not config.vectors_from:
        return {}
    folder = find_word_vectors(config.vectors_from)
    if folder is None:
        raise UserError(f"vectors_from={config.vectors_from} is neither wordllama nor its folder")
    _, state, _ = read_word_vectors(folder)
    vectors = np.asarray(state["shared.weight"]).astype(np.float64)
    tokens, width = vectors.shape
    wanted = config.judge.text
    if tokens != wanted.vocab_size or wanted.width > width:
        raise UserError(
            f"vectors_from={config.vectors_from} has {tokens} vectors of {width}; the judge's text "
            f"model has {wanted.vocab_size} of {wanted.width}, which must be as many and no wider"
        )
    _, directions = np.linalg.eigh(vectors.T @ vectors)  # the largest eigenvalue last
    return {
        ("text", "embed", "embedding"): jnp.asarray(
            vectors @ directions[:, : -wanted.width - 1 : -1], jnp.float32
        )
    }


def _weights(network: nnx.Module) -> dict[Path, Array]:
    return {path: variable[...] for path, variable in nnx.to_flat_state(nnx.state(network))}


def _check(config: JudgeTrainConfig, named: str, found: Any) -> None:
    """Raises `UserError` unless a judge or a span predictor has the sizes of the config."""
    wanted = config.judge
    sizes: list[str] = [misfit(wanted, found, (*CODEC_SIZES, "channels"))]
    sizes.append(misfit(wanted.audio, found.audio, PEAV_SIZES))
    sizes.append(misfit(wanted.text, found.text, TEXT_SIZES))
    if hasattr(found, "scoring"):
        sizes.append(misfit(wanted, found, ("latent_dim", "bottleneck")))
        sizes.append(misfit(wanted.scoring, found.scoring, PEAV_SIZES))
    if wrong := [one for one in sizes if one]:
        raise UserError(f"{named} has {'; '.join(wrong)}")


def _with_weight_norm(weights: dict[Path, Array]) -> dict[Path, Array]:
    """Plain convolutions of the wave encoder as those of weight norm with the same kernels."""
    normed = {}
    for path, value in weights.items():
        if path[0] == "wave_encoder" and path[-1] == "kernel":
            normed[*path[:-1], "direction"] = value
            normed[*path[:-1], "scale"] = jnp.sqrt(jnp.sum(jnp.square(value), axis=(0, 1)))
        else:
            normed[path] = value
    return normed
