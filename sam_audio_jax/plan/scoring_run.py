"""A run of the benchmark's scorers on a slice: memory, time of a batch, chips for a deadline.

The rules are those of `plan/estimate.py`. Unlike there, a product that asks for full float32 counts
as often as the matrix unit multiplies for it: the front ends of the scorers have such products, and
they are no small part of them. What the hosts do (decoding, cutting, moving) is not in it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax import parallel
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import compile_progress, flops, printout
from sam_audio_jax.plan.chips import Chip, Slice
from sam_audio_jax.plan.estimate import link_rate, seconds_of
from sam_audio_jax.plan.figures import Figures, program_figures
from sam_audio_jax.plan.flops import Product
from sam_audio_jax.plan.programs import Program, scorer_program
from sam_audio_jax.plan.scorer_calls import (
    SCORER_CALLS,
    BenchmarkRun,
    PlannedScorer,
    ScorerCall,
)


def plan_scorers(
    names: Sequence[str], target: Slice, run: BenchmarkRun, *, thorough: bool
) -> Figures:
    """Compiles and prints the scorers of these names; returns their figures as JSON values."""
    found: Figures = {
        "target": target.name,
        "run": dataclasses.asdict(run),
        "thorough": thorough,
        "scorers": {},
    }
    scorers = {name: SCORER_CALLS[name](run) for name in names}
    count = sum(len(scorer.calls) for scorer in scorers.values())
    done = 0
    for name, scorer in scorers.items():
        mesh = parallel.make_mesh(layout(scorer.network, target.chip), target.devices())
        programs = []
        for call in scorer.calls:
            done += 1
            what = f"compiling {done} of {count}, {call.what} of {name} for {target.name}"
            with compile_progress.working(what, compile_progress.scorer_s(thorough)):
                program = scorer_program(scorer.network, call, mesh, thorough=thorough)
            programs.append(call_figures(scorer, call, program, mesh, target))
        figures = scorer_figures(scorer, programs, run, target)
        found["scorers"][name] = figures
        print(printout.scorer_text(name, figures, run, target), flush=True)
    found["fits"] = all(one["fits"] for one in found["scorers"].values())
    if found["fits"] and len(names) > 1:
        print(printout.all_scorers_text(list(found["scorers"].values())), flush=True)
    return found


def layout(network: nnx.Module, chip: Chip) -> MeshConfig:
    """A copy of the weights on every chip, or parts of one, by the rule of inference."""
    fits = weight_bytes(network) <= parallel.COPY_SHARE * chip.hbm
    return MeshConfig(data=-1, fsdp=1) if fits else MeshConfig(fsdp=-1)


def weight_bytes(network: nnx.Module) -> int:
    """Bytes of all parameters."""
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(network)))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def call_figures(
    scorer: PlannedScorer, call: ScorerCall, program: Program, mesh: Mesh, target: Slice
) -> Figures:
    """The figures of one compiled program of a scorer, for one chip and one run of it."""
    chip = target.chip
    products = products_of(scorer.network, call)
    # Sharded weights: a chip gathers them, and computes its own rows with all of them.
    links = sum(c.sent / link_rate(mesh, target, c.axes) for c in program.collectives)
    share = chip.published.mfu if chip.published else None

    def seconds(share: float) -> float:
        return links + sum(product_seconds(p, chip, share, program.kernels) for p in products)

    return program_figures(program, target) | {
        "what": call.what,
        "items": call.items,
        "mesh": dict(mesh.shape),
        "flops": flops.total(products),
        "links_s": links,
        "roofline_s": seconds(1.0),
        "realistic_s": None if share is None else seconds(share),
    }


def products_of(network: nnx.Module, call: ScorerCall) -> list[Product]:
    """The products of one run on one shard of a batch."""
    graph, abstract = nnx.split(network)

    def run(state: Any, *arrays: Any) -> Any:
        return call.program(nnx.merge(graph, state), *arrays, **dict(call.static))

    return flops.products(run, nnx.as_pure(abstract), *call.arrays)


def product_seconds(product: Product, chip: Chip, share: float, kernels: int) -> float:
    """All runs of a product, in as many passes as its precision takes."""
    passed = dataclasses.replace(product, flops=product.flops * product.passes)
    return product.times * seconds_of(passed, chip, share, fused=kernels > 0)


def scorer_figures(
    scorer: PlannedScorer, programs: Sequence[Figures], run: BenchmarkRun, target: Slice
) -> Figures:
    """The figures of a scorer: memory of its largest program, rate, chips for the run."""
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(scorer.network)))
    figures: Figures = {
        "fits": all(one["fits"] for one in programs),
        "needed": max(one["needed"] for one in programs),
        "parameters": sum(math.prod(leaf.shape) for leaf in leaves),
        "weights": weight_bytes(scorer.network),
        "programs": list(programs),
    }
    for rule in ("roofline", "realistic"):
        if any(one[f"{rule}_s"] is None for one in programs):
            continue
        item = sum(one[f"{rule}_s"] / one["items"] for one in programs)  # of one chip
        figures[rule] = {
            "item_s": item,
            "items_per_s": target.size / item,
            "chips": math.ceil(run.items * item / run.within_s / target.chip.devices),
        }
    return figures
