"""How the quality of a checkpoint depends on the evaluations of its velocity, on fixed mixtures.

`python -m tools.sampler_table MODEL --bench DIR [--limit N] [--methods euler ab2] [--out FILE]`

Every mixture is solved from the same noise by each method and grid of times, with as many steps as
the evaluations allow. The table has the mean improvement of the target's SI-SDR in dB with its 95 %
interval, of the recording as the model's mask divides it or, with `--refine none`, of the generated
target; and the distance of the latents from those of 64 midpoint steps, relative to their norm.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.eval import baselines, distances
from sam_audio_jax.eval.prompting import PROMPTS, PromptedMixture, fit
from sam_audio_jax.eval.recorded import Recorded, Rendered
from sam_audio_jax.eval.statistics import bootstrap, interval_text
from sam_audio_jax.eval.suite import REFINES, batches, fixed_suite
from sam_audio_jax.files import write_json
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.collate import Prompts, collate_items
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.refine import RefineConfig
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.solve import Networks, decode_stems, encode_mixture, solve_latents
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.separator.flow import Method, SamplerConfig, TimeGrid
from sam_audio_jax.separator.prompts import Span

Latents = Float[np.ndarray, "rows frames state"]
REFERENCE = SamplerConfig(method="midpoint", steps=64)


@dataclasses.dataclass
class Measured:
    """Scores of one sampler, a number for each mixture."""

    improvement: list[float] = dataclasses.field(default_factory=list)  # dB
    distance: list[float] = dataclasses.field(default_factory=list)  # from `REFERENCE`


def samplers(
    evaluations: Sequence[int],
    methods: Sequence[Method] = get_args(Method),
    grids: Sequence[TimeGrid] = get_args(TimeGrid),
) -> list[SamplerConfig]:
    """Every method and grid that has so many evaluations, and the reference."""
    found = [
        SamplerConfig(method=method, steps=count // each, grid=grid)
        for count in evaluations
        for method in methods
        for grid in grids
        if not count % (each := SamplerConfig(method=method).evaluations_per_step)
    ]
    return [*found, REFERENCE] if REFERENCE not in found else found


@dataclasses.dataclass(frozen=True)
class EncodedBatch:
    """Prompted mixtures of one length, encoded, and what the reference makes of them."""

    mixtures: Sequence[PromptedMixture]
    prompts: Prompts
    exact: Latents

    @classmethod
    def of(cls, model: SAMAudio, mixtures: Sequence[PromptedMixture], rows: int) -> "EncodedBatch":
        """A batch of `rows`, those that are left over repeat the last mixture."""
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
        mixture = pipeline.compiled.on_batch(encode_mixture, prompts.wave)
        prompts = dataclasses.replace(prompts, mixture=mixture)
        return cls(mixtures, prompts, _latents(model, prompts, REFERENCE))


def measure(
    model: SAMAudio,
    batches: Sequence[EncodedBatch],
    sampler: SamplerConfig,
    refinement: RefineConfig | None,
) -> Measured:
    """The scores of one sampler on all batches: its program is compiled once."""
    scores = Measured()
    alone = refinement is None
    for batch in batches:
        count = len(batch.mixtures)
        latents = _latents(model, batch.prompts, sampler)
        waves = np.asarray(model.pipeline.compiled.on_batch(_stems, latents, targets_only=alone))
        error, size = (
            np.linalg.norm(one[:count].reshape(count, -1), axis=1)
            for one in (latents - batch.exact, batch.exact)
        )
        scores.distance += (error / size).tolist()
        scores.improvement += [
            improvement(one.recorded, stems, one.positive_spans() or (), refinement)
            for one, stems in zip(batch.mixtures, waves, strict=False)
        ]
    return scores


def _latents(model: SAMAudio, prompts: Prompts, sampler: SamplerConfig) -> Latents:
    return np.asarray(model.pipeline.compiled.on_batch(solve_latents, prompts, sampler=sampler))


def _stems(networks: Networks, latents: Latents, *, targets_only: bool) -> Any:
    return decode_stems(networks.codec, jnp.asarray(latents), targets_only=targets_only)


def improvement(
    rendered: Recorded,
    stems: Sequence[Float[np.ndarray, " _"]],
    spans: Sequence[Span],
    refinement: RefineConfig | None,
) -> float:
    """How far a target is better than the fixed mixture, SI-SDR in dB.

    `stems` are generated, the target first, at the rate of the mixture. With a refinement the
    target is what their mask leaves of the mixture, and they have a residual, too.
    """
    assert isinstance(rendered, Rendered)  # as all fixed mixtures are
    target, *others = (fit(stem, len(rendered.target)) for stem in stems)
    if refinement is not None:
        pair, rate = (target, others[0]), rendered.sample_rate
        target, _ = baselines.masked(rendered.mixture, pair, rate, refinement, spans)
    truth, mixture = (one.astype(np.float64) for one in (rendered.target, rendered.mixture))
    return float(distances.si_sdr_improvement(target.astype(np.float64), truth, mixture))


def table(measured: dict[SamplerConfig, Measured]) -> str:
    """A line for each sampler, those with few evaluations first."""
    lines = ["| evaluations | method | grid | steps | SI-SDR improvement | distance |"]
    lines.append("|---" * 6 + "|")
    for sampler, scores in sorted(measured.items(), key=lambda pair: pair[0].evaluations):
        gain, distance = bootstrap(scores.improvement), bootstrap(scores.distance)
        lines.append(
            f"| {sampler.evaluations} | {sampler.method} | {sampler.grid} | {sampler.steps} | "
            f"{interval_text(gain)} | {interval_text(distance, '{:.4f}')} |"
        )
    return "\n".join(lines)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="sampler_table")
    parser.add_argument("model", help="any checkpoint")
    parser.add_argument("--bench", required=True, help="folder of fixed mixtures, or embedded")
    parser.add_argument("--prompt", default="text+span", choices=PROMPTS)
    parser.add_argument("--limit", type=at_least(1), help="mixtures used; default: all")
    parser.add_argument("--evaluations", nargs="+", type=at_least(1), default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--methods", nargs="+", choices=get_args(Method), default=get_args(Method))
    parser.add_argument(
        "--grids", nargs="+", choices=get_args(TimeGrid), default=get_args(TimeGrid)
    )
    parser.add_argument("--refine", choices=REFINES, default="wiener", help="of the targets")
    parser.add_argument("--batch", type=at_least(1), default=8)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of every mixture's numbers")
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Prints the table."""
    options = read_options(argv)
    model = SAMAudio.from_pretrained(options.model)
    suite = fixed_suite(options.bench, model.sample_rate, [options.prompt], options.limit)
    right = [one for one in suite.separations if one.right]
    groups = [
        EncodedBatch.of(model, [separation.load() for separation in group], options.batch)
        for group in progress_bar(batches(right, options.batch), desc="reference", unit="batch")
    ]
    refinement = model.pipeline.refinement if options.refine == "wiener" else None
    measured = {
        sampler: measure(model, groups, sampler, refinement)
        for sampler in progress_bar(
            samplers(options.evaluations, options.methods, options.grids),
            desc="solving",
            unit="sampler",
        )
    }
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
