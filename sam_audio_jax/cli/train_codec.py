"""Trains the codec: `sam-audio train-codec codec_tiny --workdir runs/codec`.

Evaluation measures the averaged weights on the split `valid` of the same manifests, and leaves the
mean and spread of the latents in WORKDIR/latents.json, by which separators normalise them; where
these latents are still those of `init_from`, its mean and spread stay. Several hosts and exit
status are as for `sam-audio train`.
"""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from sam_audio_jax import config, distributed, parallel
from sam_audio_jax.allocator import keep_freed_memory
from sam_audio_jax.cli.command import command
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.codec.principal import principal
from sam_audio_jax.convert.load import load_codec
from sam_audio_jax.data.pipeline import BatchStream, ExcerptConfig, codec_excerpts
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_json
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.train import loop
from sam_audio_jax.train.codec_objective import (
    METRICS,
    evaluate_codec,
    make_codec_training,
    posterior_means,
)
from sam_audio_jax.train.config import CodecTrainConfig
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.workdir import Workdir

EVALUATED = 64  # excerpts, rounded up to whole batches
MEASURED = 512  # excerpts from which the principal channels of a wider codec are computed
KEPT = "latents"  # what checkpoints keep: mean and spread of latents that stay as they were

Scale = dict[str, float]  # `mean` and `std` of latents


def excerpts(
    cfg: CodecTrainConfig, data: ExcerptConfig, *, index: int = 0, count: int = 1
) -> BatchStream:
    """Returns the batches of the whole run, or the `index`-th of `count` shares of them."""
    rate, hop = cfg.codec.sample_rate, cfg.codec.hop
    return codec_excerpts(data, rate, hop, cfg.batch, process_index=index, process_count=count)


def evaluation(
    workdir: Workdir, cfg: CodecTrainConfig, scale: Scale | None = None
) -> Callable[[TrainState, int, bool], dict[str, float]]:
    """Returns what scores the round trip of held-out excerpts, the same ones at every call.

    Every process scores all of them; process 0 writes `scale`, the statistics of latents that stay,
    or without it those that it measures.
    """
    held_out = dataclasses.replace(cfg.data.source, split="valid")
    plain = dataclasses.replace(
        cfg.data, source=held_out, mixed=0.0, phase_rotation=False, workers=0, seed=0
    )
    batches = excerpts(cfg, plain)
    waves = [next(batches)["wave"] for _ in range(-(-EVALUATED // cfg.batch))]
    graph = nnx.graphdef(nnx.eval_shape(lambda: Codec(cfg.codec, rngs=Rngs(0))))

    def evaluate(state: TrainState, step: int, ended: bool) -> dict[str, float]:
        del step, ended
        weights = state.ema["generator"]
        if jax.process_count() > 1:
            weights = parallel.gather_to_local(weights)
        codec = nnx.merge(graph, weights)
        means = posterior_means(codec, waves)
        mean, std = float(means.mean()), float(means.std())
        if jax.process_index() == 0:
            write_json(workdir.latents_file, scale or {"mean": mean, "std": std})
        return evaluate_codec(codec, waves, cfg.loss) | {"latent_mean": mean, "latent_std": std}

    return evaluate


def check_best_metric(cfg: CodecTrainConfig) -> None:
    """Raises `UserError` for a `checkpoint.best_metric` that the evaluation does not measure."""
    best = cfg.checkpoint.best_metric
    if best and best not in (names := [*METRICS, "latent_mean", "latent_std"]):
        raise UserError(
            f"checkpoint.best_metric={best} is not evaluated; allowed: {', '.join(names)}"
        )


def initial_codec(cfg: CodecTrainConfig) -> tuple[Codec | None, Scale | None]:
    """Returns the codec that `init_from` names, and the scale of its latents where these stay.

    One with more latent channels than the config has is reduced to its principal channels.
    """
    if not cfg.init_from:
        return None, None
    start = load_codec(cfg.init_from)
    wider = dataclasses.replace(cfg.codec, codebook_dim=start.config.codebook_dim)
    if start.config.codebook_dim <= cfg.codec.codebook_dim or wider.differences(
        start.config, watermark=True
    ):  # it fits, or is refused later with the sizes that do not
        stays = {"encoder", "in_proj"} <= set(cfg.frozen)
        return start, {"mean": start.config.mean, "std": start.config.std} if stays else None
    batches = excerpts(cfg, cfg.data)
    waves = [next(batches)["wave"] for _ in range(-(-MEASURED // cfg.batch))]
    return principal(start, posterior_means(start, waves), cfg.codec.codebook_dim), None


@command
def main(argv: list[str]) -> None:
    """Trains in one workdir, from its newest checkpoint on."""
    path, profile, cfg = config.run_options(
        argv, __doc__, command="train-codec", kind=CodecTrainConfig
    )
    check_best_metric(cfg)
    keep_freed_memory()
    distributed.initialize()
    workdir = Workdir.open(path, cfg)
    mesh = parallel.make_mesh(cfg.mesh)
    index, count = parallel.process_rows(mesh)
    batches = excerpts(cfg, cfg.data, index=index, count=count)
    start, scale = initial_codec(cfg)
    scale = workdir.kept_in_checkpoint(KEPT) or scale
    evaluate = evaluation(workdir, cfg, scale)
    state, step = make_codec_training(cfg, start)
    loop.train_and_evaluate(
        cfg,
        workdir=workdir.path,
        state=state,
        step=step,
        batches=batches,
        mesh=mesh,
        frames_per_step=cfg.batch * round(cfg.data.seconds * cfg.codec.frame_rate),
        evaluate=evaluate,
        profile=profile,
        kept={KEPT: scale} if scale else {},
    )
