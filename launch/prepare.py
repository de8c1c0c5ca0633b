"""Renders training mixtures and encodes them once: `python launch/prepare.py CONFIG.py --out DIR`.

Train from the cache with `--data.cache DIR`; with `--alignment.weight` above 0 it also holds what
the teacher features of the alignment loss. Run again to resume, or with more --items to extend.
"""

import argparse
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax import config
from sam_audio_jax.convert.load import load_codec
from sam_audio_jax.data import pipeline, shards
from sam_audio_jax.errors import UserError
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import make_teacher


def options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = config.ArgumentParser(
        __doc__, epilog="Every other --FIELD VALUE overrides a field of the config."
    )
    parser.add_argument("config", metavar="CONFIG.py", help="of the training; names the codec")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the cache")
    parser.add_argument("--items", type=int, default=20_000, help="mixtures, whole shards of 64")
    parser.add_argument("--batch", type=int, default=8, help="mixtures encoded at once")
    return parser.parse_known_args(argv)


def hearing(cfg: TrainConfig, rate: int) -> shards.Teacher | None:
    """The alignment's teacher, if the config weights it; heard are waves at `rate`."""
    aim = cfg.alignment
    if not aim.weight:
        return None
    graph, state = nnx.split(make_teacher(aim))
    features = nnx.jit(
        lambda state, waves: nnx.merge(graph, state).features(waves, rate, tensor=aim.tensor)
    )
    return shards.Teacher(
        f"{aim.teacher_checkpoint}, {aim.tensor}",
        aim.teacher.segment_s,
        lambda waves: np.asarray(features(state, jnp.asarray(waves))),
    )


def main(argv: list[str]) -> int:
    try:
        given, flags = options(argv)
        if given.items < 1 or given.batch < 1:
            raise UserError(f"--items {given.items} and --batch {given.batch} must be 1 or more")
        cfg = config.from_cli([given.config, *flags])
        if not isinstance(cfg, TrainConfig):
            raise UserError(f"{given.config} holds a {type(cfg).__name__}, not a TrainConfig")
        if not cfg.codec_checkpoint:
            raise UserError("codec_checkpoint is empty; name a trained codec")
        codec = load_codec(cfg.codec_checkpoint)
        rate, hop = codec.config.sample_rate, codec.config.hop
        mixer = pipeline.mixer(cfg.data, rate, hop)
        graph, state = nnx.split(codec)
        encode = nnx.jit(lambda state, waves: nnx.merge(graph, state).encode(waves))
        shards.write_cache(
            given.out,
            lambda number: mixer.draw(np.random.default_rng((cfg.data.seed, 1, number))),
            lambda waves: np.asarray(encode(state, waves)),
            items=given.items,
            sample_rate=rate,
            hop=hop,
            samples=mixer.samples,
            codec=cfg.codec_checkpoint,
            recipe=pipeline.recipe(cfg.data),
            batch=given.batch,
            teacher=hearing(cfg, rate),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
