"""Trains the separator: `python launch/train.py configs/tiny.py --workdir runs/tiny`."""

import pathlib
import sys
from collections.abc import Callable

from flax import nnx

from sam_audio_jax import config, parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert import workdir as runs
from sam_audio_jax.data.pipeline import separation_batches
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.bench import evaluate_model
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import make_model, make_separator_training
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.train.workdir import check_workdir, claim_workdir


def own_codec(workdir: pathlib.Path, cfg: TrainConfig) -> Codec:
    """The frozen codec: once there are checkpoints, the workdir's own copy of it."""
    check_workdir(workdir, cfg)
    if runs.saved_steps(workdir):
        return runs.load_codec_folder(workdir / "codec")
    if cfg.codec_checkpoint:
        return runs.load_codec(cfg.codec_checkpoint)
    return Codec(cfg.codec, rngs=nnx.Rngs(cfg.seed))


def evaluation(
    workdir: pathlib.Path, cfg: TrainConfig, codec: Codec
) -> Callable[[TrainState, int], dict[str, float]]:
    """Scores the averaged weights on `eval_bench`; results go to WORKDIR/eval/STEP."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: make_model(cfg)))
    tokenizer = tokenizer_for(cfg.data.tokenizer)

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        prompted = nnx.merge(graph, state.ema)
        model = SAMAudio(codec, prompted, tokenizer, sampler=cfg.sampler)
        return evaluate_model(
            model,
            cfg.eval_bench,
            workdir / "eval" / str(step),
            limit=cfg.eval_limit or None,
            workdir=workdir,
        )

    return evaluate


def main(argv: list[str]) -> int:
    try:
        workdir, profile, cfg = config.run_options(argv, __doc__)
        if not isinstance(cfg, TrainConfig):
            raise UserError(f"{argv[0]} holds a {type(cfg).__name__}, not a TrainConfig")
        mesh = parallel.make_mesh(cfg.mesh)
        codec = own_codec(workdir, cfg)
        start = runs.load_networks(cfg.init_from, mesh=mesh)[1] if cfg.init_from else None
        state, step, codec_weights = make_separator_training(cfg, codec, mesh, start)
        rate, hop = cfg.codec.sample_rate, cfg.codec.hop
        batches = separation_batches(cfg.data, rate, hop, cfg.batch)
        claim_workdir(workdir, cfg)
        if not runs.saved_steps(workdir):
            runs.save_codec_folder(workdir / "codec", codec)
        loop.run(
            cfg,
            workdir=workdir,
            state=state,
            step=step,
            batches=batches,
            mesh=mesh,
            frames_per_step=lambda: batches.frames,
            frozen=codec_weights,
            evaluate=evaluation(workdir, cfg, codec) if cfg.eval_bench else None,
            profile=profile,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
