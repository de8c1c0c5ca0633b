"""What a training run of the separator evaluates, on the fixed mixtures of `eval_bench`.

The held-out flow loss of each domain, for the live and the averaged weights, and the separation
metrics of the averaged weights, whose report is in `WORKDIR/eval/STEP/`.
"""

import difflib
import itertools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from sam_audio_jax import parallel
from sam_audio_jax.audio import USUAL_DB, measure_level
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.load import load_extras
from sam_audio_jax.convert.training_run import separation_settings
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import baselines
from sam_audio_jax.eval.evaluation import evaluate_model
from sam_audio_jax.eval.mixtures import Bench, FixedMixture, load_bench, render
from sam_audio_jax.eval.prompting import PROMPTS
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.eval.results import LOGGED
from sam_audio_jax.eval.scoring import COLUMNS, FOLLOWING
from sam_audio_jax.eval.statistics import ALL
from sam_audio_jax.eval.suite import REFINES, choose
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.held_out import HeldOutItem, HeldOutLoss
from sam_audio_jax.train.objective import make_model, whole_params
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.workdir import Workdir


def training_evaluation(
    workdir: Workdir, config: TrainConfig, codec: Codec, mesh: Mesh, frozen: PyTree = None
) -> Callable[[TrainState, int, bool], dict[str, float]] | None:
    """Returns what the loop calls to evaluate a state; None without an `eval_bench`.

    The held-out loss is computed on the devices of all processes. Each process then separates its
    share of the mixtures on its own devices, and process 0 writes the report; `eval_scores` may
    leave that out. `frozen` are the frozen weights of the run, of which it needs the base of
    adapters. Raises `UserError` for a bad bench.
    """
    if not config.eval_bench:
        return None
    items = held_out_items(config.eval_bench, config.eval_limit or None, codec.config.sample_rate)
    held_out = HeldOutLoss(config, codec, mesh, items)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: make_model(config)))
    # Those of the model that comes out of the run, so that `sam-audio evaluate` gives the same.
    settings = separation_settings(to_dict(config))
    if config.lora.rank:  # of which the base has the refinement
        settings["refine"] = load_extras(config.init_from).get("refine", {})
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(nnx.as_pure(abstract)))
    local = parallel.inference_mesh(None, lambda: size)

    if local is not None:  # beside the weights
        graph_of_codec, weights_of_codec = nnx.split(codec)
        state = jax.device_put(nnx.as_pure(weights_of_codec), parallel.replicated(local))
        codec = nnx.merge(graph_of_codec, state)

    def to_local(weights: PyTree) -> PyTree:
        """The weights on the devices of this process, laid out for inference."""
        shardings = None if local is None else parallel.parameter_shardings(abstract, local)
        if jax.process_count() > 1:
            return parallel.gather_to_local(weights, shardings)
        return weights if shardings is None else jax.device_put(weights, shardings)

    def evaluate(state: TrainState, step: int, ended: bool) -> dict[str, float]:
        losses = held_out(state, frozen)
        if not separates(config, ended):
            return losses
        model = SAMAudio.from_networks(
            codec,
            nnx.merge(graph, to_local(whole_params(state.ema, frozen or {}))),
            config.data.prompts.tokenizer,
            settings,
            mesh=local,
        )
        scores = evaluate_model(
            model,
            config.eval_bench,
            workdir.evaluation(step),
            limit=config.eval_limit or None,
            workdir=workdir.path,
        )
        return losses | (scores or {})

    return evaluate


def separates(config: TrainConfig, ended: bool) -> bool:
    """Whether an evaluation separates the mixtures; `ended`: it is that of the end of the run, by
    its steps or by the clock."""
    return config.eval_scores == "all" or (config.eval_scores == "last" and ended)


def check_evaluation(config: TrainConfig) -> None:
    """Raises `UserError` for a bench that cannot be read, and for a metric that nothing measures
    or that not every evaluation does.

    It needs no network, so that a run does not find out at its first evaluation.
    """
    best = config.checkpoint.best_metric
    if not config.eval_bench:
        if best:
            raise UserError(
                f"checkpoint.best_metric={best} needs an eval_bench: without one nothing is scored"
            )
        return
    settings = [*dict.fromkeys(item.setting for item in load_bench(config.eval_bench).mixtures)]
    settings.append(ALL)
    losses = {
        f"flow_loss/{weights}/{setting}" for weights in ("live", "averaged") for setting in settings
    }
    names = set(losses)
    columns = [name for name in LOGGED if name in (*COLUMNS, *FOLLOWING)]
    for column, setting in itertools.product(columns, settings):
        names |= {f"{column}/{row}/{setting}" for row in baselines.NAMES if column in COLUMNS}
        names |= {
            f"{column}/{refine}/{setting}/{prompt}" for refine in REFINES for prompt in PROMPTS
        }
    if best and best not in names:
        nearest = difflib.get_close_matches(best, sorted(names), n=1)
        suggestion = f"did you mean {nearest[0]}? " if nearest else ""
        raise UserError(
            f"checkpoint.best_metric={best} is not evaluated; {suggestion}allowed: "
            f"flow_loss/W/S with W live or averaged; C/R/S/P with C of {', '.join(columns)}, R of "
            f"{', '.join(REFINES)}, P of {', '.join(PROMPTS)}; C/B/S with B of "
            f"{', '.join(baselines.NAMES)}; S of {', '.join(settings)}"
        )
    if best and best not in losses and config.eval_scores != "all":
        raise UserError(
            f"checkpoint.best_metric={best} is a separation score, and eval_scores="
            f"{config.eval_scores} leaves those out: set eval_scores=all, or flow_loss/averaged/all"
        )


def held_out_items(bench: str, limit: int | None, sample_rate: int) -> list[HeldOutItem]:
    """The mixtures of a bench as items of the held-out loss, at a codec's rate and at the level to
    which recordings are brought for a separation."""
    listing = load_bench(bench)
    return [
        HeldOutItem(
            domain=mixture.setting,
            text=mixture.caption,
            seconds=mixture.seconds,
            stems=_renderer(listing, mixture, sample_rate),
        )
        for mixture in choose(listing.mixtures, limit)
    ]


def _renderer(
    bench: Bench, mixture: FixedMixture, sample_rate: int
) -> Callable[[], tuple[Wave, Wave]]:
    def stems() -> tuple[Wave, Wave]:
        rendered = render(bench, mixture).resampled(sample_rate)
        gain = np.float32(measure_level(rendered.mixture, sample_rate, USUAL_DB).gain)
        return gain * rendered.target, gain * rendered.residual

    return stems
