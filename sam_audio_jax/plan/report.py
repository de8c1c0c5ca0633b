"""Plans and searches as text and as JSON."""

import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from sam_audio_jax import parallel
from sam_audio_jax.plan.chips import GIB, Slice
from sam_audio_jax.plan.estimate import Estimate, estimate, mesh_sizes, with_remat, work_of
from sam_audio_jax.plan.hlo import Collective
from sam_audio_jax.plan.programs import Program, sample_program, train_program
from sam_audio_jax.plan.search import REMAT, Layout, layouts, parameters, state_bytes
from sam_audio_jax.train.config import TrainConfig

Figures = dict[str, Any]


def plan(config: TrainConfig, target: Slice, *, rows: int, fast: bool) -> Figures:
    """Compiles and prints the train step and, with `rows` recordings per chip, the sampler."""
    figures = compile_train_step(config, target, fast=fast)
    print(_train_text(figures, target))
    if rows:
        mesh = parallel.make_mesh(config.mesh, target.devices())
        shares = parallel.batch_axis_size(mesh)
        _say(f"compiling the sampler for {target.name}")
        program = sample_program(config, mesh, rows=rows * shares, fast=fast)
        figures["sampler"] = _program(program, target) | {"rows": rows * shares}
        print(_sampler_text(figures["sampler"]))
    return figures


def search(config: TrainConfig, target: Slice, *, tries: int, fast: bool) -> Figures:
    """Compiles the most promising layouts and prints them ranked; ends with the flags to use."""
    _say("estimating layouts")
    ranked = layouts(config, target)
    tried: list[Figures] = []
    for layout in ranked:
        if len(tried) == tries:
            break
        if any(_hopeless(layout, other) for other in tried):
            continue
        own = dataclasses.replace(with_remat(config, layout.remat), mesh=layout.mesh)
        tried.append(compile_train_step(own, target, fast=fast))
        print(_row(tried[-1]), flush=True)
    best = sorted((t for t in tried if t["fits"]), key=lambda t: t["step_s"])
    print(f"\n{len(ranked)} layouts, {len(tried)} compiled, {len(best)} fit; fastest first:")
    for figures in best:
        print(_row(figures))
    if best:
        print(f"use: {_flags(best[0])}")
    return {"target": target.name, "fits": bool(best), "tried": tried}


def _hopeless(layout: Layout, other: Figures) -> bool:
    """Whether a layout holds at least as much as one that did not fit."""
    same = other["mesh"]["tensor"] == layout.mesh.tensor
    more = REMAT.index(layout.remat) <= REMAT.index(other["remat"])
    return not other["fits"] and same and more and layout.state >= other["state"]


def compile_train_step(config: TrainConfig, target: Slice, *, fast: bool) -> Figures:
    sizes = mesh_sizes(config.mesh, target.chips)
    shape = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
    _say(f"compiling the train step for {target.name} ({shape}, {config.separator.dit.remat})")
    mesh = parallel.make_mesh(config.mesh, target.devices())
    return train_figures(config, target, train_program(config, mesh, fast=fast))


def train_figures(config: TrainConfig, target: Slice, program: Program) -> Figures:
    """Everything about the compiled train step, as JSON."""
    mesh = parallel.make_mesh(config.mesh, target.devices())
    kernel = "splash" if program.kernels else "xla"
    work = work_of(config, config.mesh, target, kernel)
    figures = _program(program, target) | {
        "target": target.name,
        "mesh": mesh_sizes(config.mesh, target.chips),
        "remat": config.separator.dit.remat,
        "attention": kernel,
        "batch": config.batch,
        "state": state_bytes(config, config.mesh, target.chips),
        "flops_useful": work.useful * target.chips,
        "flops_done": work.done * target.chips,
        "parameters": parameters(config),
    }
    if program.fits:  # by the compiler
        figures |= _times(estimate(work, mesh, target, program.collectives, program.donated))
    return figures


def _program(program: Program, target: Slice) -> Figures:
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


def _summed(found: Sequence[Collective]) -> list[Figures]:
    """By kind and axes: instructions, runs in a step, bytes that a chip sends."""
    groups: dict[tuple, list[Collective]] = collections.defaultdict(list)
    for one in found:
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
    return sum(one.sent for one in group)


def _times(made: Estimate) -> Figures:
    return {
        "products_s": made.work.seconds,
        "update_s": made.update,
        "links_s": made.links,
        "step_s": made.step,
        "step_exposed_s": made.step_exposed,
        "mfu": made.mfu,
        "mfu_exposed": made.mfu_exposed,
    }


def _train_text(f: Figures, target: Slice) -> str:
    chip = target.chip
    mesh = ", ".join(f"{name} {size}" for name, size in f["mesh"].items())
    lines = [
        f"train step on {target.name}, {target.chips} chips: {mesh}; batch {f['batch']}; "
        f"remat {f['remat']}; attention {f['attention']}",
        f"  parameters     {f['parameters'] / 1e6:.0f} M with the text encoder",
        f"  state          {_gib(f['state'])} a chip (parameters, average, moments)",
        *_memory_lines(f, chip.hbm),
    ]
    if f["compiles"]:
        lines += [
            f"  operations     {f['flops_useful']:.3g} a step, {f['flops_done']:.3g} with what is "
            f"recomputed (the compiler's count, loops once: {f['flops_compiler']:.3g} a chip)",
            *_collective_lines(f["collectives"]),
            f"  step           {f['step_s']:.3f} s: products {f['products_s']:.3f}, links "
            f"{f['links_s']:.3f} (hidden), update {f['update_s']:.3f}; "
            f"{f['step_exposed_s']:.3f} s with links exposed",
            f"  MFU            {f['mfu']:.1%}, with links exposed {f['mfu_exposed']:.1%}",
            f"  assumed        {chip.flops / 1e12:.0f} TFLOP/s bf16, memory "
            f"{chip.hbm_rate / 1e9:.0f} GB/s, {chip.link_rate / 1e9:.0f} GB/s "
            "a link and direction; products at the roofline",
        ]
    return "\n".join(lines)


def _memory_lines(f: Figures, hbm: float) -> list[str]:
    if not f["compiles"]:
        return [f"  memory         DOES NOT FIT: {_gib(f['needed'])} of {_gib(hbm)} a chip"]
    if not f["fits"]:
        return [
            f"  memory         DOES NOT FIT: {_gib(f['needed'])} of {_gib(hbm)} a chip by the size "
            f"of its buffers (temporaries {_gib(f['temporaries'])}); the compiler would try"
        ]
    return [
        f"  memory         fits: {_gib(f['needed'])} of {_gib(hbm)} a chip, {_gib(f['free'])} free "
        f"(arguments {_gib(f['arguments'])}, temporaries {_gib(f['temporaries'])})",
    ]


def _collective_lines(found: Sequence[Figures]) -> list[str]:
    return [
        f"  {one['kind']:<18} over {'+'.join(one['axes']):<12} {one['sent'] / 1e9:8.3f} GB sent by "
        f"a chip in {one['runs']} runs of {one['instructions']} instructions"
        for one in found
    ]


def _sampler_text(f: Figures) -> str:
    lines = [f"sampler, {f['rows']} recordings at once", *_memory_lines(f, f["needed"] + f["free"])]
    return "\n".join(lines + _collective_lines(f["collectives"]))


def _row(f: Figures) -> str:
    mesh = ",".join(str(size) for size in f["mesh"].values())
    head = f"mesh {mesh:<12} remat {f['remat']:<10}"
    if not f["fits"]:
        return f"{head} does not fit ({_gib(f['needed'])})"
    return (
        f"{head} {_gib(f['needed'])}, step {f['step_s']:.3f} to {f['step_exposed_s']:.3f} s, "
        f"MFU {f['mfu']:.1%} to {f['mfu_exposed']:.1%}"
    )


def _flags(f: Figures) -> str:
    mesh = " ".join(f"--mesh.{name} {size}" for name, size in f["mesh"].items())
    return f"{mesh} --separator.dit.remat {f['remat']}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def fits(figures: Figures) -> bool:
    """Whether everything that was planned fits."""
    return figures["fits"] and figures.get("sampler", figures)["fits"]


def write(path: pathlib.Path, figures: Figures) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n")
