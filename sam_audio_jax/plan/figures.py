"""Plans and searches: what is compiled, and its figures as JSON."""

import collections
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from sam_audio_jax import parallel
from sam_audio_jax.files import write_json
from sam_audio_jax.plan import compile_progress, printout
from sam_audio_jax.plan.chips import Slice
from sam_audio_jax.plan.collectives import Collective
from sam_audio_jax.plan.estimate import Estimate, estimate, mesh_sizes, work_of
from sam_audio_jax.plan.operations import done_by_step, of_step, with_remat
from sam_audio_jax.plan.programs import Program, sample_program, train_program
from sam_audio_jax.plan.search import REMAT, Candidate, candidates, parameters, state_bytes
from sam_audio_jax.plan.tiles import misfits
from sam_audio_jax.train.config import TrainConfig

Figures = dict[str, Any]


def plan(config: TrainConfig, target: Slice, *, rows: int, thorough: bool) -> Figures:
    """Compiles and prints the training step and, with `rows` recordings per chip, the sampler."""
    _print_lines(printout.tile_lines(misfits(config, config.mesh, target)))
    programs = f"of {2 if rows else 1}"
    figures = compile_train_step(config, target, f"1 {programs}", thorough=thorough)
    print(printout.train_text(figures, target), flush=True)
    if rows:
        mesh = parallel.make_mesh(config.mesh, target.devices())
        shards = parallel.batch_axis_size(mesh)
        what = f"compiling 2 {programs}, the sampler for {target.name}"
        with compile_progress.working(what, compile_progress.sampler_s(thorough)):
            program = sample_program(config, mesh, rows=rows * shards, thorough=thorough)
        figures["sampler"] = program_figures(program, target) | {"rows": rows * shards}
        print(printout.sampler_text(figures["sampler"]), flush=True)
    return figures


def search(config: TrainConfig, target: Slice, *, tries: int, thorough: bool) -> Figures:
    """Compiles the most promising layouts and prints them ranked; ends with the flags to use."""
    _print_lines(["estimating layouts"])
    ranked = candidates(config, target)
    count, start = min(tries, len(ranked)), time.monotonic()
    _print_lines([f"{len(ranked)} layouts, of which up to {count} are compiled"])
    tried: list[Figures] = []
    for layout in ranked:
        if len(tried) == tries:
            break
        if any(_cannot_fit(layout, other) for other in tried):
            continue
        own = dataclasses.replace(with_remat(config, layout.remat), mesh=layout.mesh)
        tried.append(
            compile_train_step(own, target, f"{len(tried) + 1} of {count}", thorough=thorough)
        )
        print(printout.row(tried[-1]), flush=True)
        if len(tried) < count:
            left = (time.monotonic() - start) / len(tried) * (count - len(tried))
            _print_lines([f"  about {compile_progress.duration(left)} left"])
    best = sorted((t for t in tried if t["fits"]), key=lambda t: t["step_s"])
    print(f"\n{len(ranked)} layouts, {len(tried)} compiled, {len(best)} fit; fastest first:")
    for figures in best:
        print(printout.row(figures))
    if best:
        print(f"use: {printout.flags(best[0])}")
    return {"target": target.name, "fits": bool(best), "tried": tried}


def _cannot_fit(layout: Candidate, other: Figures) -> bool:
    """Whether a layout needs at least as much memory as another one that did not fit."""
    same = other["mesh"]["tensor"] == layout.mesh.tensor
    more = REMAT.index(layout.remat) <= REMAT.index(other["remat"])
    return not other["fits"] and same and more and layout.state >= other["state"]


def compile_train_step(
    config: TrainConfig, target: Slice, which: str, *, thorough: bool
) -> Figures:
    """Compiles the training step on the config's mesh of the slice; returns its figures.

    `which` program of how many it is, is printed.
    """
    sizes = mesh_sizes(config.mesh, target.size)
    sides = [f"{name} {size}" for name, size in sizes.items() if size > 1]
    shape = " x ".join(sides) or "one device"
    mesh = parallel.make_mesh(config.mesh, target.devices())
    remat = config.separator.dit.remat
    what = f"compiling {which}, the training step for {target.name} ({shape}, remat {remat})"
    with compile_progress.working(what, compile_progress.train_step_s(config, thorough)):
        program = train_program(config, mesh, thorough=thorough)
    return train_figures(config, target, program) | {"thorough": thorough}


def train_figures(config: TrainConfig, target: Slice, program: Program) -> Figures:
    """All figures of a compiled training step, as JSON values."""
    mesh = parallel.make_mesh(config.mesh, target.devices())
    kernel = "splash" if program.kernels else "xla"
    work = work_of(config, config.mesh, target, kernel)
    figures = program_figures(program, target) | {
        "target": target.name,
        "mesh": mesh_sizes(config.mesh, target.size),
        "remat": config.separator.dit.remat,
        "attention": kernel,
        "batch": config.batch,
        "state": state_bytes(config, config.mesh, target.size),
        "flops_useful": of_step(config),
        "flops_done": done_by_step(config),
        "parameters": parameters(config),
    }
    if program.fits:  # by the compiler
        figures |= _times(estimate(work, mesh, target, program))
    return figures


def program_figures(program: Program, target: Slice) -> Figures:
    """The figures of one compiled program, for one chip."""
    return {
        # The compiler refuses later than this: its own limit is on the peak, which is lower.
        "fits": program.fits and program.needed <= target.chip.hbm,
        "compiles": program.fits,
        "needed": program.needed,
        "free": target.chip.hbm - program.needed,
        "arguments": program.arguments,
        "temporaries": program.temporaries,
        "donated": program.donated,
        "flops_compiler": program.flops,
        "compile_s": program.seconds,
        "collectives": _summed(program.collectives),
    }


def _summed(collectives: Sequence[Collective]) -> list[Figures]:
    """By kind and axes: instructions, runs in a step, bytes that a chip sends."""
    groups: dict[tuple, list[Collective]] = collections.defaultdict(list)
    for one in collectives:
        groups[one.kind, one.axes].append(one)
    return [
        {
            "kind": kind,
            "axes": list(axes),
            "instructions": len(group),
            "runs": sum(one.times for one in group),
            "sent": sum(one.sent for one in group),
        }
        for (kind, axes), group in sorted(groups.items(), key=lambda item: -_sent(item[1]))
    ]


def _sent(group: Sequence[Collective]) -> float:
    """Bytes that a chip sends in a step."""
    return sum(one.sent for one in group)


def _times(timing: Estimate) -> Figures:
    """The estimated times of one training step, in seconds, and the shares of the peak."""
    return {
        "products_s": timing.work.seconds,
        "update_s": timing.update,
        "links_s": timing.links,
        "step_s": timing.step,
        "step_exposed_s": timing.step_exposed,
        "mfu": timing.mfu,
        "mfu_exposed": timing.mfu_exposed,
        "products_realistic_s": timing.work.realistic,
        "step_realistic_s": timing.step_realistic,
        "mfu_realistic": timing.mfu_realistic,
        "schedule": dataclasses.asdict(timing.schedule),
    }


def _print_lines(lines: Sequence[str]) -> None:
    """Prints lines of progress and warnings."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def fits(figures: Figures) -> bool:
    """Whether everything that was planned fits."""
    return figures["fits"] and figures.get("sampler", figures)["fits"]


def write(path: pathlib.Path, figures: Figures) -> None:
    """Writes the figures as JSON, whole or not at all."""
    write_json(path, figures)
