"""Times one part in this process, alone or in turns with PyTorch, and prints rows of the table."""

import dataclasses
import importlib
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from sam_audio_jax.bench.parts import Forward, Measurement
from sam_audio_jax.bench.scorer_parts import ScorerForward
from sam_audio_jax.errors import UserError

TORCH_COLUMNS = ("PyTorch", "peak memory", "faster by", "difference")

Side = Literal["jax", "torch", "both"]
Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
CLOCK_NAMES: dict[Clock, str] = {"wall": "wall", "cpu": "CPU time"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process has measured of a part."""

    times: dict[str, list[float]]  # seconds of each run, by side
    peak: float  # GiB, the largest resident memory of the process
    difference: float | None = None  # of both sides' results, over the largest value
    result: list[float] | None = None  # of a scorer, whose sides run in processes of their own


def measure(part: Measurement, runs: int, side: Side, clock: Clock = "wall") -> Measured:
    """Times `runs` runs of each side after one that compiles; both sides take turns.

    Raises `UserError` if PyTorch is missing, or has no such part.
    """
    now = CLOCKS[clock]
    calls: dict[str, Callable[[], Any]] = {}
    if side != "torch":
        run, arguments = part.make()
        calls["jax"] = lambda: jax.block_until_ready(run(*arguments))
    if side != "jax":
        calls["torch"] = torch_call(part)
    results = {name: call() for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            start = now()
            call()
            times[name].append(now() - start)
    difference, result = None, None
    if side == "both":
        difference = difference_of(results["jax"], results["torch"])
    elif isinstance(part.make, ScorerForward):
        result = np.asarray(results[side], np.float64).ravel().tolist()
    return Measured(times=times, peak=peak_gib(), difference=difference, result=result)


def difference_of(ours: Any, theirs: Any) -> float:
    """The largest difference of two results, over the largest value of PyTorch's."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.size != theirs.size:
        raise UserError(
            f"results of {ours.size} and {theirs.size} numbers cannot be compared: "
            "PyTorch's form is not of this size"
        )
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def joined(ours: Measured, theirs: Measured) -> Measured:
    """What two processes have measured of one part, each one side, as if it had been one."""
    return Measured(
        times={**ours.times, **theirs.times},
        peak=ours.peak,
        difference=difference_of(ours.result, theirs.result),
    )


def torch_call(part: Measurement) -> Callable[[], Any]:
    """Returns the part in PyTorch, with the same weights and inputs, on this process's cores."""
    if not isinstance(part.make, Forward | ScorerForward):
        raise UserError(f"PyTorch has no part {part.title!r} to compare with")
    module = "torch_reference" if isinstance(part.make, Forward) else "torch_scorers"
    try:
        reference = importlib.import_module(f"sam_audio_jax.bench.{module}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"--against torch needs {error.name}: pip install 'sam-audio-jax[bench]'"
        ) from None
    return reference.call(part.make)


def peak_gib() -> float:
    """Returns the largest resident memory that this process has had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def header(*, against: bool, clock: Clock = "wall") -> str:
    """Returns the first two lines of the table."""
    columns = ("what", CLOCK_NAMES[clock], "rate", "peak memory")
    columns = (*columns, *TORCH_COLUMNS) if against else columns
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def row(part: Measurement, ours: Measured) -> str:
    """Returns the row of one part that was measured alone."""
    return f"| {' | '.join(_cells(part, ours.times['jax'], ours.peak))} |"


def row_without(part: Measurement, ours: Measured, reason: str) -> str:
    """Returns the row of one part that has no PyTorch side here, and why."""
    empty = ("-",) * (len(TORCH_COLUMNS) - 1)
    return f"{row(part, ours)} {' | '.join((reason, *empty))} |"


def row_against(part: Measurement, both: Measured, ours: Measured, theirs: Measured) -> str:
    """Returns the row of one part: times from the process of both sides, peaks from their own."""
    medians = {side: statistics.median(times) for side, times in both.times.items()}
    cells = (
        *_cells(part, both.times["jax"], ours.peak),
        _wall(both.times["torch"]),
        f"{theirs.peak:.1f} GiB",
        f"{medians['torch'] / medians['jax']:.2f} x",
        f"{both.difference:.0e}",
    )
    return f"| {' | '.join(cells)} |"


def _cells(part: Measurement, times: list[float], peak: float) -> tuple[str, ...]:
    rate = part.amount / statistics.median(times)
    shown = f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
    return part.title, _wall(times), f"{shown} {part.unit}/s", f"{peak:.1f} GiB"


def _wall(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def machine() -> str:
    """Returns the processor's name and count, JAX's device and its version."""
    name = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return f"{os.cpu_count()} x {name}, {jax.devices()[0].device_kind}, jax {jax.__version__}"
