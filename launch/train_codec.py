"""Trains the codec: `python launch/train_codec.py configs/codec_tiny.py --workdir runs/codec`.

Evaluation measures the averaged weights on the split `valid` of the same manifests, and leaves the
mean and spread of the latents in WORKDIR/latents.json, by which separators normalise them.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from sam_audio_jax import config, parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.workdir import load_codec, write_latent_scale
from sam_audio_jax.data.pipeline import codec_excerpts
from sam_audio_jax.errors import UserError
from sam_audio_jax.train import loop
from sam_audio_jax.train.codec_objective import evaluate_codec, make_codec_training
from sam_audio_jax.train.config import CodecTrainConfig
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.train.workdir import check_workdir

EVALUATED = 64  # excerpts, rounded up to whole batches


def evaluation(
    workdir: pathlib.Path, cfg: CodecTrainConfig
) -> Callable[[TrainState, int], dict[str, float]]:
    """Round trip of the same held-out excerpts at every call."""
    plain = dataclasses.replace(
        cfg.data, split="valid", mixed=0.0, phase_rotation=False, workers=0, seed=0
    )
    batches = codec_excerpts(plain, cfg.codec.sample_rate, cfg.codec.hop, cfg.batch)
    waves = [next(batches)["wave"] for _ in range(-(-EVALUATED // cfg.batch))]
    graph = nnx.graphdef(nnx.eval_shape(lambda: Codec(cfg.codec, rngs=nnx.Rngs(0))))
    encode = jax.jit(lambda weights, wave: nnx.merge(graph, weights).moments(wave)[0])

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        del step
        weights = state.ema["generator"]
        means = np.concatenate([np.ravel(encode(weights, wave)) for wave in waves])
        mean, std = float(means.mean()), float(means.std())
        write_latent_scale(workdir, mean, std)
        measured = evaluate_codec(nnx.merge(graph, weights), waves, cfg.loss)
        return measured | {"latent_mean": mean, "latent_std": std}

    return evaluate


def main(argv: list[str]) -> int:
    try:
        workdir, profile, cfg = config.run_options(argv, __doc__)
        if not isinstance(cfg, CodecTrainConfig):
            raise UserError(f"{argv[0]} holds a {type(cfg).__name__}, not a CodecTrainConfig")
        check_workdir(workdir, cfg)
        mesh = parallel.make_mesh(cfg.mesh)
        batches = codec_excerpts(cfg.data, cfg.codec.sample_rate, cfg.codec.hop, cfg.batch)
        evaluate = evaluation(workdir, cfg)
        start = load_codec(cfg.init_from) if cfg.init_from else None
        state, step = make_codec_training(cfg, start)
        loop.run(
            cfg,
            workdir=workdir,
            state=state,
            step=step,
            batches=batches,
            mesh=mesh,
            frames_per_step=cfg.batch * round(cfg.data.seconds * cfg.codec.frame_rate),
            evaluate=evaluate,
            profile=profile,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
