"""Trains the codec: `python launch/train_codec.py configs/codec_tiny.py --workdir runs/codec`."""

import sys

from sam_audio_jax import config, parallel
from sam_audio_jax.data.pipeline import codec_excerpts
from sam_audio_jax.errors import UserError
from sam_audio_jax.train import loop
from sam_audio_jax.train.codec_objective import make_codec_training
from sam_audio_jax.train.config import CodecTrainConfig
from sam_audio_jax.train.workdir import check_workdir


def main(argv: list[str]) -> int:
    try:
        workdir, profile, cfg = config.run_options(argv, __doc__)
        if not isinstance(cfg, CodecTrainConfig):
            raise UserError(f"{argv[0]} holds a {type(cfg).__name__}, not a CodecTrainConfig")
        check_workdir(workdir, cfg)
        state, step = make_codec_training(cfg)
        frames = round(cfg.data.seconds * cfg.codec.frame_rate)
        loop.run(
            cfg,
            workdir=workdir,
            state=state,
            step=step,
            batches=codec_excerpts(cfg.data, cfg.codec.sample_rate, cfg.codec.hop, cfg.batch),
            mesh=parallel.make_mesh(cfg.mesh),
            frames_per_step=cfg.batch * frames,
            profile=profile,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
