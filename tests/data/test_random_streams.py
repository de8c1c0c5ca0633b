"""The same seed gives the same examples for ever: the order of random draws is a contract.

The numbers in `golden/random_streams.json` were made when prompts and mixtures were first fixed. A
change that moves them gives every run another stream of examples: it needs a reason and a note.
"""

import json
import pathlib

import numpy as np
import pytest

from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.excerpts import ExcerptConfig
from sam_audio_jax.data.length_buckets import Schedule
from tests.data import toy

GOLDEN = pathlib.Path(__file__).parent / "golden" / "random_streams.json"
PROMPTS = {"span_share": 0.9, "negative_share": 0.3, "subset_share": 0.5, "short_share": 0.4}
BUCKETS = {"token_budget": 450, "buckets_s": (1.0, 1.6, 2.0), "row_multiple": 4}


def test_a_seed_gives_the_examples_that_it_always_gave(world, tmp_path):
    golden = json.loads(GOLDEN.read_text())
    streams = first_batches(world, str(tmp_path / "latents"))
    assert streams.keys() == golden.keys()
    for name, batches in golden.items():
        for ours, theirs in zip(streams[name], batches, strict=True):
            assert ours.keys() == theirs.keys()
            for key, (size, weighted) in theirs.items():
                margin = 1e-4 * size + 1e-9
                assert ours[key] == pytest.approx([size, weighted], abs=margin), (name, key)


def first_batches(world: str, folder: str) -> dict[str, list[dict[str, list[float]]]]:
    """Summaries of the first batches of each kind of stream; `folder` gets a latent cache."""
    toy.write_cache(folder, toy.config(world, seconds=3.0), 16, teacher=toy.TEACHER)
    configs = {
        "mixed": toy.config(world, **PROMPTS),
        "mixed, buckets": toy.config(world, **PROMPTS, **BUCKETS),
        "cached": toy.config(world, **PROMPTS, cache=folder),
        "cached, buckets": toy.config(world, **PROMPTS, **BUCKETS, cache=folder, seed=3),
    }
    streams = {}
    for name, config in configs.items():
        batch = 0 if config.batches.token_budget else 6
        streams[name] = list(map(summary, toy.take(toy.separation(config, batch), 2)))
    excerpts = ExcerptConfig(source=SourceConfig(manifests=(world,)), seconds=0.5)
    batches = toy.take(pipeline.codec_excerpts(excerpts, toy.RATE, toy.HOP, 6), 1)
    streams["excerpts"] = list(map(summary, batches))
    schedule = Schedule(toy.config(world, **BUCKETS).batches, 0, toy.RATE / toy.HOP)
    firsts = [schedule.first(step) for step in (1, 10, 999, 1500)]
    streams["schedule"] = [{"first": firsts[:2]}, {"first": firsts[2:]}]
    return streams


def summary(batch: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Of each array of a batch the sum of magnitudes and a sum weighted by position."""
    batch = dict(batch)
    numbers = {}
    for name, rows in batch.items():
        flat = rows.astype(np.float64).ravel()
        numbers[name] = [float(np.abs(flat).sum()), float(flat @ np.cos(np.arange(flat.size)))]
    return numbers
