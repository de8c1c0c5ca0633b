"""Times one part in this process and prints it as a row of the table."""

import os
import pathlib
import platform
import resource
import statistics
import time

import jax

from sam_audio_jax.bench.parts import Measurement

COLUMNS = ("what", "wall", "rate", "peak memory", "PyTorch", "faster by")


def run_times(part: Measurement, runs: int) -> list[float]:
    """Returns the wall times in seconds of `runs` runs, after one that compiles."""
    run, arguments = part.make()
    jax.block_until_ready(run(*arguments))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        times.append(time.perf_counter() - start)
    return times


def peak_gib() -> float:
    """Returns the largest resident memory that this process has had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def header() -> str:
    """Returns the first two lines of the table."""
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(part: Measurement, times: list[float], peak: float) -> str:
    """Returns the row of one part, by its wall times in seconds and its peak memory in GiB."""
    median = statistics.median(times)
    cells = (
        part.title,
        f"{median:.2f} s ({min(times):.2f} to {max(times):.2f})",
        f"{part.amount / median:.1f} {part.unit}/s",
        f"{peak:.1f} GiB",
        f"{part.reference_s:.2f} s" if part.reference_s else "-",
        f"{part.reference_s / median:.2f} x" if part.reference_s else "-",
    )
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Returns the processor's name and count, JAX's device and its version."""
    name = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return f"{os.cpu_count()} x {name}, {jax.devices()[0].device_kind}, jax {jax.__version__}"
