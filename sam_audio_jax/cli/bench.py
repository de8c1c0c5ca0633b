"""Measures how fast the parts are on this machine: `sam-audio bench [NAME ...]` (default: all).

Every part runs in a process of its own, so that its peak memory is its own; a figure is the median
of --runs runs after one that compiles. Reference: the PyTorch implementation on 2 threads of
another machine, so read the ratio as a rough one.

`dtypes` is not about time: how far bfloat16 leads away from float32, for `small` at full size.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sam_audio_jax import config
from sam_audio_jax.cli.command import command
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.flow import FlowConfig, SamplerConfig, flow_loss, sample
from sam_audio_jax.separator.model import Separator, SeparatorConfig
from sam_audio_jax.separator.prompts import Conditions

FRAMES, TOKENS, SECONDS = 250, 32, 4  # 10 s and 32 text tokens; 4 s of sound for the codec
SMALL = DitConfig(depth=12, width=1536, heads=12, mlp=4096, dropout=0.0, dtype="float32")


@dataclasses.dataclass(frozen=True)
class Timing:
    """One line of the table."""

    what: str
    make: Callable[[], tuple[Callable, tuple]]  # a jitted function and its arguments
    amount: int  # of what a run handles
    unit: str
    reference_s: float | None = None  # wall time of the PyTorch implementation


def conditions(batch: int, config: SeparatorConfig) -> Conditions:
    keys = iter(jax.random.split(jax.random.key(1), 3))

    def draw(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), (batch, *shape))

    return Conditions(
        mixture=draw(FRAMES, config.channels),
        text=draw(TOKENS, config.text_width),
        text_mask=jnp.ones((batch, TOKENS), bool),
        video=draw(FRAMES, config.video_width),
        anchors=jnp.zeros((batch, FRAMES), jnp.int32),
        valid=jnp.ones((batch, FRAMES), bool),
    )


def to_device(make: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, nnx.State]:
    """Random weights made in one compiled call."""
    graph = nnx.graphdef(nnx.eval_shape(make))
    return graph, jax.jit(lambda: nnx.as_pure(nnx.state(make())))()


def forward(depth: int) -> tuple[Callable, tuple]:
    config = SeparatorConfig(dit=dataclasses.replace(SMALL, depth=depth))
    graph, state = to_device(lambda: Separator(config, rngs=nnx.Rngs(0)))
    noisy = jax.random.normal(jax.random.key(2), (1, FRAMES, 2 * config.channels))
    run = jax.jit(lambda s, x, t, c: nnx.merge(graph, s)(x, t, c))
    return run, (state, noisy, jnp.array([0.5]), conditions(1, config))


def train(depth: int) -> tuple[Callable, tuple]:
    config = SeparatorConfig(dit=dataclasses.replace(SMALL, depth=depth))
    graph, state = to_device(lambda: Separator(config, rngs=nnx.Rngs(0)))
    tx = optax.adamw(1e-4)
    given = conditions(1, config)
    x1 = jax.random.normal(jax.random.key(2), (1, FRAMES, 2 * config.channels))
    every_frame = jnp.ones((1, FRAMES), bool)

    @jax.jit
    def step(state, moments):
        def loss(state):
            separator = nnx.merge(graph, state)
            velocity = lambda x, t: separator(x, t, given)  # noqa: E731
            return flow_loss(velocity, x1, every_frame, jax.random.key(3), FlowConfig())

        updates, moments = tx.update(jax.grad(loss)(state), moments, state)
        return optax.apply_updates(state, updates), moments

    return step, (state, jax.jit(tx.init)(state))


def alive(state: nnx.State) -> nnx.State:
    """The same with random numbers in place of zeros: an initialised separator has velocity 0."""

    def redraw(path: tuple, x: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(4), zlib.crc32(str(path).encode()))
        inputs = x.shape[-2] if x.ndim > 1 else 100
        drawn = jax.random.normal(key, x.shape) * inputs**-0.5 if x.size > 1 else jnp.ones_like(x)
        return jnp.where(jnp.any(x), x, drawn)

    return jax.tree_util.tree_map_with_path(redraw, state)


def dtypes(steps: int = 16) -> Iterator[str]:
    """Rows of a table: error of one velocity and, for each stem, of what the solver ends with."""
    yield f"small, {FRAMES} frames, midpoint, {steps} steps; |a - b| / |b| against float32\n"
    yield "| parameters | compute | one velocity | target | residual |\n|---|---|---|---|---|"
    drawn, truth = None, None
    for parameters, compute in (("float32",) * 2, ("float32", "bfloat16"), ("bfloat16",) * 2):
        config = SeparatorConfig(dit=dataclasses.replace(SMALL, dtype=compute))
        make = lambda c=config: Separator(c, rngs=nnx.Rngs(0))  # noqa: E731
        graph = nnx.graphdef(nnx.eval_shape(make))
        drawn = jax.jit(alive)(to_device(make)[1]) if drawn is None else drawn
        state = jax.tree.map(lambda x, to=parameters: x.astype(to), drawn)
        noise = jax.random.normal(jax.random.key(2), (1, FRAMES, 2 * config.channels))

        @jax.jit
        def solve(state, noise, given, graph=graph):
            separator = nnx.merge(graph, state)
            context = separator.prepare(given)
            velocity = lambda x, t: separator.velocity(x, t, context)  # noqa: E731
            first = velocity(noise, jnp.zeros(1))
            return first, sample(velocity, noise, SamplerConfig(steps=steps))

        first, last = map(np.asarray, solve(state, noise, conditions(1, config)))
        found = [first, *np.split(last, 2, axis=-1)]
        truth = found if truth is None else truth
        errors = (
            np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, truth, strict=True)
        )
        yield f"| {parameters} | {compute} | {' | '.join(f'{e:.1e}' for e in errors)} |"


def codec(name: str) -> tuple[Callable, tuple]:
    config = CodecConfig()
    graph, state = to_device(lambda: Codec(config, rngs=nnx.Rngs(0)))
    if name == "encode":
        x = jax.random.normal(jax.random.key(1), (1, SECONDS * config.sample_rate)) / 10
    else:
        frames = config.frames(SECONDS * config.sample_rate)
        x = jax.random.normal(jax.random.key(1), (1, frames, config.codebook_dim))
    return jax.jit(lambda s, x: getattr(nnx.merge(graph, s), name)(x)), (state, x)


def separation(minutes: int) -> tuple[Callable, tuple]:
    """The shipped model on noise: reading, windows, codec; one evaluation of the transformer."""
    model = SAMAudio.from_pretrained("tiny")
    rate = model.sample_rate
    wave = np.random.default_rng(0).standard_normal(minutes * 60 * rate, np.float32) / 10
    ask = functools.partial(model.separate, text="speech", sample_rate=rate)
    return lambda wave: ask(wave, method="euler", steps=1).target, (wave,)


PARTS = {
    "dit": Timing(
        "DiT forward, small, 12 layers, 10 s", lambda: forward(12), FRAMES, "frames", 1.96
    ),
    "dit-2": Timing("DiT forward, small width, 2 layers", lambda: forward(2), FRAMES, "frames"),
    "train-2": Timing("train step, small width, 2 layers", lambda: train(2), FRAMES, "frames"),
    "encode": Timing("codec encode, full size, 4 s", lambda: codec("encode"), SECONDS, "s", 5.3),
    "decode": Timing("codec decode, full size, 4 s", lambda: codec("decode"), SECONDS, "s", 9.6),
    "minute": Timing("separate 1 minute, tiny, 1 Euler step", lambda: separation(1), 60, "s"),
    "hour": Timing("separate 60 minutes, tiny, 1 Euler step", lambda: separation(60), 3600, "s"),
}


def measure(part: Timing, runs: int) -> str:
    """One row of the table."""
    run, arguments = part.make()
    jax.block_until_ready(run(*arguments))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ratio = f"{part.reference_s / median:.2f} x" if part.reference_s else "-"
    reference = f"{part.reference_s:.2f} s" if part.reference_s else "-"
    cells = (
        part.what,
        f"{median:.2f} s ({min(times):.2f} to {max(times):.2f})",
        f"{part.amount / median:.1f} {part.unit}/s",
        f"{peak:.1f} GiB",
        reference,
        ratio,
    )
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return f"{os.cpu_count()} x {name}, {jax.devices()[0].device_kind}, jax {jax.__version__}"


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for an unknown part or no runs."""
    parser = config.ArgumentParser(__doc__, command="bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*PARTS, "dtypes")))
    parser.add_argument("--runs", type=int, default=5, help="of each part, after one to compile")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in (*PARTS, "dtypes")]
    if unknown:
        raise UserError(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}, dtypes")
    if options.runs < 1:
        raise UserError(f"--runs {options.runs} must be 1 or more")
    return options


@command
def main(argv: list[str]) -> int:
    """Prints a table with one row a part, each measured in a process of its own."""
    options = read_options(argv)
    if options.alone and options.names == ["dtypes"]:
        for line in dtypes():
            print(line, flush=True)
        return 0
    if options.alone:
        print(measure(PARTS[options.names[0]], options.runs))
        return 0
    print(f"{machine()}; median (and range) of {options.runs} runs, float32, batch 1\n", flush=True)
    print("| what | wall | rate | peak memory | PyTorch | faster by |\n|---|---|---|---|---|---|")
    sys.stdout.flush()
    for name in options.names or PARTS:
        again = [sys.executable, "-m", "sam_audio_jax.cli", "bench", name, "--alone"]
        status = subprocess.run([*again, "--runs", str(options.runs)], check=False).returncode
        if status:
            return status
    return 0
