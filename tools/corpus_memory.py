"""Measures the memory of a streamed source at several sizes: `python -m tools.corpus_memory`.

Each size is a manifest of as many entries, with a caption each, of a few files. One process lists
them into a table and ends; another opens the table and makes examples. Printed are their peaks.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import soundfile

from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import DataConfig, MixConfig, SourceConfig
from sam_audio_jax.data.library import open_library
from sam_audio_jax.files import write_jsonl

RATE, HOP, FILES, FILE_S = 16_000, 640, 16, 10.0
SIZES = (1_000, 10_000, 100_000)
EXAMPLES = 300


def write_corpus(folder: pathlib.Path, entries: int) -> str:
    """A manifest of entries that repeat a few files; every caption and source is another one."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        wave = 0.1 * rng.standard_normal(int(FILE_S * RATE)).astype(np.float32)
        soundfile.write(folder / f"{number}.flac", wave, RATE)
    lines: Any = (
        {
            "id": f"entry {number}",
            "path": f"{number % FILES}.flac",
            "caption": f"machine {number} humming",
            "category": "sfx",
            "source_id": f"source {number}",
            "duration": FILE_S,
        }
        for number in range(entries)
    )
    write_jsonl(folder / "manifest.jsonl", lines)
    return str(folder / "manifest.jsonl")


def work(manifest: str, examples: int) -> str:
    """Opens the source and makes examples; returns what this process took."""
    source = SourceConfig(manifests=(manifest,), streamed=True)
    start = time.monotonic()
    open_library(source, RATE)
    seconds = time.monotonic() - start
    mix = MixConfig(seconds=4.0, recipes=(("sfx", "sfx", 1.0),))
    items = pipeline.examples(DataConfig(source=source, mix=mix), RATE, HOP) if examples else ()
    for number in range(examples):
        items[number]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return f"{peak:.0f} MiB | {seconds:.2f} s"


@command
def main(argv: list[str]) -> None:
    """Prints a table with one row a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=at_least(1), default=list(SIZES))
    parser.add_argument("--manifest", help=argparse.SUPPRESS)
    parser.add_argument("--examples", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.manifest:
        print(work(options.manifest, options.examples))
        return
    print("| entries | listing: peak | and time | examples: peak | and opening |")
    print("|---|---|---|---|---|", flush=True)
    for entries in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            manifest = write_corpus(pathlib.Path(name), entries)
            cells = [
                subprocess.run(
                    [
                        *(sys.executable, "-m", "tools.corpus_memory"),
                        *("--manifest", manifest, "--examples", str(examples)),
                    ],
                    env=os.environ | {"SAM_AUDIO_CACHE": f"{name}/cache"},
                    check=True,
                    text=True,
                    stdout=subprocess.PIPE,
                ).stdout.strip()
                for examples in (0, EXAMPLES)
            ]
            print(f"| {entries:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
