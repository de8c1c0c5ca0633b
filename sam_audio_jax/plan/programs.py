"""The real training step and sampler of a config, compiled for a slice without its hardware."""

import dataclasses
import functools
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.data.length_buckets import Schedule
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import solve
from sam_audio_jax.infer.collate import Prompts
from sam_audio_jax.nn import call
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.plan.collectives import Collective, collectives
from sam_audio_jax.plan.scorer_calls import ScorerCall
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import AbstractTraining, abstract_training
from sam_audio_jax.train.shapes import batch_shapes
from sam_audio_jax.train.step import jit_step

# The least effort takes an eighth of the compiler's time; its programs need more memory, and no
# collective of theirs is behind a product.
FAST = {"exec_time_optimization_effort": -1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The compiler's figures of one program, for one chip; sizes in bytes."""

    fits: bool  # by the compiler, which goes by the peak of use
    needed: float  # arguments, results that do not reuse their buffers, temporaries
    arguments: float = 0.0
    temporaries: float = 0.0
    donated: float = 0.0
    flops: float = 0.0  # the compiler's count, which takes a loop's body once
    collectives: tuple[Collective, ...] = ()
    kernels: int = 0  # calls of Pallas kernels in the text
    seconds: float = 0.0  # of compilation
    text: str = ""  # with the schedule


@functools.lru_cache(maxsize=4)
def abstract_codec(config: CodecConfig) -> Codec:
    """The codec's shapes, without numbers."""
    return nnx.eval_shape(lambda: Codec(config, rngs=Rngs(0)))


def at_longest_bucket(config: TrainConfig) -> TrainConfig:
    """With a token budget, the step of its longest bucket; else the config itself."""
    if not config.data.batches.token_budget:
        return config
    bucket = Schedule(config.data.batches, config.data.seed, config.codec.frame_rate).buckets[-1]
    seconds = bucket.frames / config.codec.frame_rate
    data = dataclasses.replace(
        config.data,
        mix=dataclasses.replace(config.data.mix, seconds=seconds),
        batches=dataclasses.replace(
            config.data.batches, token_budget=0, buckets_s=(), shortest_s=0.0, bucket_shares=()
        ),
    )
    return dataclasses.replace(config, data=data, batch=bucket.rows)


def abstract_training_of(config: TrainConfig, mesh: Mesh | AbstractMesh) -> AbstractTraining:
    """The training on this mesh. Raises `UserError` for a batch that the mesh does not divide."""
    shards = parallel.batch_axis_size(mesh)
    if config.batch % (shards * config.optim.accumulate):
        raise UserError(
            f"batch={config.batch} must be a multiple of {shards} batch shards of the mesh times "
            f"optim.accumulate={config.optim.accumulate}"
        )
    return abstract_training(config, abstract_codec(config.codec), mesh)


def train_program(config: TrainConfig, mesh: Mesh, *, thorough: bool = False) -> Program:
    """The training step, with donation, as the loop runs it."""
    plan = abstract_training_of(config, mesh)
    batch = batch_shapes(config, config.batch, parallel.batch_sharding(mesh))
    jitted = jit_step(plan.step, plan.shardings, parallel.replicated(mesh))
    return _compiled(jitted, (plan.state, batch, plan.frozen), mesh, thorough)


def sample_program(
    config: TrainConfig, mesh: Mesh, *, rows: int, thorough: bool = False
) -> Program:
    """Separation of `rows` recordings of the config's length: encode, condition, solve, decode."""

    def make() -> solve.Networks:
        rngs = Rngs(0)
        return solve.Networks(
            Codec(dataclasses.replace(config.codec, watermark_rates=()), rngs=rngs),
            T5Encoder(config.text, rngs=rngs),
            Separator(config.separator, rngs=rngs),
        )

    graph, abstract = nnx.split(nnx.eval_shape(make))
    state = parallel.with_shardings(
        nnx.as_pure(abstract), parallel.parameter_shardings(abstract, mesh)
    )
    sharding = parallel.batch_sharding(mesh)
    shapes: dict[str, Any] = batch_shapes(config, rows, sharding)
    frames = shapes["valid"].shape[1]

    def shaped(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), jnp.float32, sharding=sharding)

    kept = ("valid", "text_ids", "text_mask", "anchors")
    prompts = Prompts(
        wave=shaped(frames * config.codec.hop),
        noise=shaped(frames, 2 * config.codec.codebook_dim),
        **{name: shapes[name] for name in kept},
    )
    static = (("sampler", config.sampler),)
    program = call.jitted(solve.separate_batch)
    return _compiled(program, (graph, state, (prompts,), static), mesh, thorough)


def scorer_program(
    network: nnx.Module, run: ScorerCall, mesh: Mesh, *, thorough: bool = False
) -> Program:
    """One program of a scorer, whose `network` may be abstract, its batch sharded over the mesh."""
    graph, abstract = nnx.split(network)
    state = parallel.with_shardings(
        nnx.as_pure(abstract), parallel.parameter_shardings(abstract, mesh)
    )
    shards, sharding = parallel.batch_axis_size(mesh), parallel.batch_sharding(mesh)
    arrays = tuple(
        jax.ShapeDtypeStruct((shards * x.shape[0], *x.shape[1:]), x.dtype, sharding=sharding)
        for x in run.arrays
    )
    jitted = call.jitted(run.program)
    return _compiled(jitted, (graph, state, arrays, run.static), mesh, thorough)


def _compiled(jitted: Any, arguments: tuple[PyTree, ...], mesh: Mesh, thorough: bool) -> Program:
    """Compiles a jitted function for the mesh; `fits` is False where the compiler lacks memory."""
    start = time.monotonic()
    with jax.set_mesh(mesh):
        lowered = jitted.lower(*arguments)
        try:
            compiled = lowered.compile(compiler_options=None if thorough else FAST)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            seconds = time.monotonic() - start
            return Program(fits=False, needed=_wanted(str(error)), seconds=seconds)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.argument_size_in_bytes + output + memory.temp_size_in_bytes
    return Program(
        fits=True,
        needed=held,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        donated=memory.alias_size_in_bytes,
        flops=compiled.cost_analysis().get("flops", 0.0),
        collectives=tuple(collectives(text, dict(mesh.shape))),
        kernels=text.count('custom_call_target="tpu_custom_call"'),
        seconds=time.monotonic() - start,
        text=text,
    )


def _wanted(message: str) -> float:
    """Bytes that the program would have needed, from the compiler's message; nan without."""
    match = re.search(r"\(?([\d.]+)([KMGT])\)?(?: exceeds| of )", message)
    return float(match[1]) * 1024 ** ("KMGT".index(match[2]) + 1) if match else float("nan")
