"""The figures of plans and searches as text."""

from collections.abc import Callable, Sequence
from typing import Any

from sam_audio_jax.plan.chips import GIB, Chip, Slice
from sam_audio_jax.plan.scorer_calls import BenchmarkRun
from sam_audio_jax.plan.tiles import Misfit

_Figures = dict[str, Any]


def train_text(f: _Figures, target: Slice) -> str:
    """The figures of a training step, one line for each kind."""
    chip = target.chip
    mesh = ", ".join(f"{name} {size}" for name, size in f["mesh"].items())
    halves = " (figures of half a chip)" if chip.devices == 2 else ""
    lines = [
        f"training step on {target.name}, {target.chips} chips{halves}: {mesh}; "
        f"batch {f['batch']}; remat {f['remat']}; attention {f['attention']}",
        f"  parameters     {f['parameters'] / 1e6:.0f} M with the text encoder",
        f"  state          {_gib(f['state'])} a chip (parameters, average, moments)",
        *_memory_lines(f, chip.hbm),
    ]
    if f["compiles"]:
        lines += [
            f"  operations     {f['flops_useful']:.3g} a step, {f['flops_done']:.3g} with what is "
            f"recomputed (the compiler's count, loops once: {f['flops_compiler']:.3g} a chip)",
            *_collective_lines(f["collectives"]),
            f"  roofline       {f['step_s']:.3f} s: products {f['products_s']:.3f}, links "
            f"{f['links_s']:.3f} (hidden), update {f['update_s']:.3f}; MFU {f['mfu']:.1%}; with "
            f"links exposed {f['step_exposed_s']:.3f} s, {f['mfu_exposed']:.1%}",
            *_realistic_lines(f, chip),
            f"  assumed        {chip.flops / 1e12:.0f} TFLOP/s bf16, memory "
            f"{chip.hbm_rate / 1e9:.0f} GB/s, {chip.link_rate / 1e9:.0f} GB/s "
            "a link and direction",
        ]
    return "\n".join(lines)


def _realistic_lines(f: _Figures, chip: Chip) -> list[str]:
    """The best published MFU, what the schedule hides, and the MFU that follows from both."""
    schedule = f["schedule"]
    exposed, links = 1e3 * schedule["exposed"], 1e3 * schedule["links"]
    read = (
        f"  schedule       exposes {exposed:.0f} of {links:.0f} ms of collectives: "
        f"{schedule['covered']} of {schedule['starts']} asynchronous runs have products between "
        f"start and end, {schedule['synchronous']} are synchronous"
    )
    if chip.published is None:
        return [f"  published      no MFU for {chip.name}, so no realistic figure", read]
    lower = "" if f["thorough"] else " (with nothing hidden: the lower end)"
    return [
        f"  published      {chip.published.mfu:.1%} is the best MFU on a {chip.name} (MaxText, "
        f"{chip.published.model}; {chip.published.source})",
        read,
        *([] if f["thorough"] else [_LEAST_EFFORT]),
        f"  realistic      {f['step_realistic_s']:.3f} s, MFU {f['mfu_realistic']:.1%}{lower}: "
        f"products at {chip.published.mfu:.1%} of the peak at most "
        f"{f['products_realistic_s']:.3f}, exposed {schedule['exposed']:.3f}, update "
        f"{f['update_s']:.3f}",
    ]


_LEAST_EFFORT = (
    "                 the compiler hides nothing with its least effort; --thorough shows what the "
    "schedule of a real run hides"
)


def tile_lines(misfits: Sequence[Misfit]) -> list[str]:
    """One warning for each size that does not fill the chip's tiles."""
    return [
        f"warning: {one.field} = {one.whole}"
        + (f", {one.value} on a chip," if one.value != one.whole else "")
        + f" is no multiple of {one.tile}, the tile of the chip's matrix unit: it costs as "
        f"{one.rounded} does, roughly {one.cost:.1%} more work in a block"
        for one in misfits
    ]


def _memory_lines(f: _Figures, hbm: float) -> list[str]:
    """Whether a program fits into a chip's memory of `hbm` bytes, and what needs it."""
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


def _collective_lines(collectives: Sequence[_Figures]) -> list[str]:
    """One line for each kind of collective and mesh axes."""
    return [
        f"  {one['kind']:<18} over {'+'.join(one['axes']):<12} {one['sent'] / 1e9:8.3f} GB sent by "
        f"a chip in {one['runs']} runs of {one['instructions']} instructions"
        for one in collectives
    ]


def sampler_text(f: _Figures) -> str:
    """The memory and the collectives of the sampler."""
    lines = [f"sampler, {f['rows']} recordings at once", *_memory_lines(f, f["needed"] + f["free"])]
    return "\n".join(lines + _collective_lines(f["collectives"]))


def scorer_text(name: str, f: _Figures, run: BenchmarkRun, target: Slice) -> str:
    """The figures of one scorer: each of its programs, its rate, and chips for the run."""
    mesh = ", ".join(f"{axis} {n}" for axis, n in f["programs"][0]["mesh"].items() if n > 1)
    lines = [
        f"{name} on {target.name}, {target.chips} chips: {mesh}; {f['parameters'] / 1e6:.0f} M "
        f"parameters, {_gib(f['weights'])}"
    ]
    for one in f["programs"]:
        lines += [
            f"  {one['what']:<14} {one['items']:.3g} items a chip in one run ({run.candidates} "
            f"candidates of {run.seconds:g} s each), {one['flops']:.3g} operations",
            *_memory_lines(one, target.chip.hbm),
            *_collective_lines(one["collectives"]),
            f"  time           {_by_rule(one, '_s', lambda s: f'{1e3 * s:.3g} ms')}",
        ]
    rates = {rule: f[rule] for rule in ("roofline", "realistic") if rule in f}
    lines += [
        "  rate           "
        + ", ".join(f"{one['items_per_s']:.0f} items/s {rule}" for rule, one in rates.items()),
        f"  chips          for {run.items} items x {run.candidates} candidates in "
        f"{run.within_s:g} s: "
        + ", ".join(f"{one['chips']} {rule}" for rule, one in rates.items()),
    ]
    return "\n".join(lines)


def _by_rule(f: _Figures, key: str, show: Callable[[float], str]) -> str:
    """A figure by the roofline and, where there is one, by the realistic rule."""
    found = {rule: f[f"{rule}{key}"] for rule in ("roofline", "realistic")}
    return ", ".join(f"{show(s)} {rule}" for rule, s in found.items() if s is not None)


def all_scorers_text(scorers: Sequence[_Figures]) -> str:
    """The chips that all scorers need together, each on chips of its own."""
    rules = [rule for rule in ("roofline", "realistic") if all(rule in one for one in scorers)]
    sums = (f"{sum(one[rule]['chips'] for one in scorers)} {rule}" for rule in rules)
    return f"all of them, side by side: {', '.join(sums)} chips"


def row(f: _Figures) -> str:
    """One line of a search."""
    mesh = ",".join(str(size) for size in f["mesh"].values())
    head = f"mesh {mesh:<12} remat {f['remat']:<10}"
    if not f["fits"]:
        return f"{head} does not fit ({_gib(f['needed'])})"
    return (
        f"{head} {_gib(f['needed'])}, step {f['step_s']:.3f} to {f['step_exposed_s']:.3f} s, "
        f"MFU {f['mfu']:.1%} to {f['mfu_exposed']:.1%}"
        + ("" if f["mfu_realistic"] is None else f", realistic {f['mfu_realistic']:.1%}")
    )


def flags(f: _Figures) -> str:
    """The flags of `sam-audio train` for the layout of a plan."""
    mesh = " ".join(f"--mesh.{name} {size}" for name, size in f["mesh"].items())
    return f"{mesh} --separator.dit.remat {f['remat']}"


def _gib(size: float | int) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.2f} GiB"
