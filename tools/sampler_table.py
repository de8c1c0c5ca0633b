"""How the quality of a checkpoint depends on the evaluations of its velocity, on fixed mixtures.

`python -m tools.sampler_table MODEL --bench DIR [--limit N] [--evaluations 4 8 16] [--out FILE]`

Every mixture is solved from the same noise by each method and grid of times, with as many steps as
the evaluations allow. The table has the mean improvement of the target's SI-SDR in dB with its 95 %
interval, and the distance of the latents from those of 64 midpoint steps, relative to their norm.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import tqdm
from jaxtyping import Float

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.eval import distances
from sam_audio_jax.eval.prompting import PROMPTS, PromptedMixture, fit
from sam_audio_jax.eval.recorded import Rendered
from sam_audio_jax.eval.statistics import Interval, bootstrap
from sam_audio_jax.eval.suite import batches, fixed_suite
from sam_audio_jax.files import write_json
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.collate import collate_items
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.solve import decode_stems, solve_latents
from sam_audio_jax.separator.flow import Method, SamplerConfig, TimeGrid

REFERENCE = SamplerConfig(method="midpoint", steps=64)


@dataclasses.dataclass
class Measured:
    """Scores of one sampler, a number for each mixture."""

    improvement: list[float] = dataclasses.field(default_factory=list)  # dB
    distance: list[float] = dataclasses.field(default_factory=list)  # from `REFERENCE`


def samplers(evaluations: Sequence[int]) -> list[SamplerConfig]:
    """Every method and grid that has so many evaluations, and the reference."""
    found = [
        SamplerConfig(method=method, steps=count // each, grid=grid)
        for count in evaluations
        for method in get_args(Method)
        for grid in get_args(TimeGrid)
        if not count % (each := SamplerConfig(method=method).evaluations_per_step)
    ]
    return [*found, REFERENCE]


def measure(
    model: SAMAudio, mixtures: Sequence[PromptedMixture], chosen: Sequence[SamplerConfig], rows: int
) -> Iterator[tuple[SamplerConfig, list[float], list[float]]]:
    """For each sampler the improvements and distances of a batch of mixtures of one length."""
    pipeline = model.pipeline
    items = [
        model.item(
            one.recorded.mixture,
            one.text,
            one.positive_spans(),
            sample_rate=one.recorded.sample_rate,
            name=one.recorded.item.id,
        )
        for one in mixtures
    ]
    frames = pipeline.frames(items[0])
    noise = SeparateOptions().noise(frames, 2 * model.codec.config.codebook_dim)
    prompts = collate_items(
        items,
        [noise] * len(items),
        Group(frames, rows, tuple(range(len(items)))),
        codec=model.codec,
        tokenizer=pipeline.tokenizer,
    )
    exact = _latents(model, prompts, REFERENCE)[: len(items)]
    for sampler in chosen:
        latents = _latents(model, prompts, sampler)
        waves = pipeline.compiled.on_batch(_targets, latents)
        error = np.linalg.norm((latents[: len(items)] - exact).reshape(len(items), -1), axis=1)
        size = np.linalg.norm(exact.reshape(len(items), -1), axis=1)
        improvements = [
            _improvement(one.recorded, wave)
            for one, wave in zip(mixtures, np.asarray(waves), strict=False)
        ]
        yield sampler, improvements, (error / size).tolist()


def _latents(model, prompts, sampler: SamplerConfig) -> Float[np.ndarray, "rows frames state"]:
    return np.asarray(model.pipeline.compiled.on_batch(solve_latents, prompts, sampler=sampler))


def _targets(networks, latents) -> Float[np.ndarray, "rows samples"]:
    return decode_stems(networks.codec, latents, targets_only=True)[:, 0]


def _improvement(rendered: Rendered, wave: np.ndarray) -> float:
    truth, mixture = (one.astype(np.float64) for one in (rendered.target, rendered.mixture))
    estimate = fit(wave, len(truth)).astype(np.float64)
    return float(distances.si_sdr_improvement(estimate, truth, mixture))


def table(measured: dict[SamplerConfig, Measured]) -> str:
    """A line for each sampler, those with few evaluations first."""
    lines = ["| evaluations | method | grid | steps | SI-SDR improvement | distance |"]
    lines.append("|---" * 6 + "|")
    for sampler, scores in sorted(measured.items(), key=lambda pair: pair[0].evaluations):
        gain, distance = bootstrap(scores.improvement), bootstrap(scores.distance)
        lines.append(
            f"| {sampler.evaluations} | {sampler.method} | {sampler.grid} | {sampler.steps} | "
            f"{_cell(gain, 2)} | {_cell(distance, 4)} |"
        )
    return "\n".join(lines)


def _cell(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return "-"
    numbers = (interval.mean, interval.low, interval.high)
    mean, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{mean} ({low} to {high})"


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="sampler_table")
    parser.add_argument("model", help="any checkpoint")
    parser.add_argument("--bench", required=True, help="folder of fixed mixtures, or embedded")
    parser.add_argument("--prompt", default="text+span", choices=PROMPTS)
    parser.add_argument("--limit", type=at_least(1), help="mixtures used; default: all")
    parser.add_argument("--evaluations", nargs="+", type=at_least(1), default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--batch", type=at_least(1), default=8)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of every mixture's numbers")
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Prints the table."""
    options = read_options(argv)
    model = SAMAudio.from_pretrained(options.model)
    suite = fixed_suite(options.bench, model.sample_rate, [options.prompt], options.limit)
    chosen = samplers(options.evaluations)
    measured = {sampler: Measured() for sampler in chosen}
    right = [one for one in suite.separations if one.right]
    for group in tqdm.tqdm(batches(right, options.batch), desc="solving", unit="batch"):
        loaded = [separation.load() for separation in group]
        for sampler, improvement, distance in measure(model, loaded, chosen, options.batch):
            measured[sampler].improvement += improvement
            measured[sampler].distance += distance
    print(table(measured))
    if options.out:
        write_json(
            options.out,
            [
                {"sampler": dataclasses.asdict(sampler)} | dataclasses.asdict(scores)
                for sampler, scores in measured.items()
            ],
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
