"""Renders training mixtures and encodes them once: `sam-audio prepare CONFIG --out DIR`.

Train from the cache with `--data.cache DIR`. With `--alignment.weight` above 0 the cache also holds
the teacher features of the alignment loss, and with `--vision-checkpoint MODEL` those that the
vision tower of a model makes of recordings with a video and a mask, and with `--data.waves` the
waves of both stems, for a loss of refined stems. A second call resumes, or extends with more
--items. Any number of processes may make one cache, each with its own --process I --processes N and
the same folder; they need not meet, and the last one to end finishes it.
"""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from jax.sharding import Mesh

from sam_audio_jax import config
from sam_audio_jax.cli.command import (
    add_mesh_options,
    add_process_options,
    at_least,
    command,
    mesh_of,
    process_rank,
)
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.data import pipeline, shards
from sam_audio_jax.data.blended_examples import named_recipe
from sam_audio_jax.data.tower_tracks import TowerTracks, open_tower_tracks
from sam_audio_jax.data.video_tracks import VideoTracks
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_writable
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers.cnn14 import Cnn14
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.frozen import make_codec, make_teacher, open_vision


def read_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the flags that are left for the config."""
    parser = config.ArgumentParser(
        __doc__,
        command="prepare",
        epilog="Every other --FIELD VALUE overrides a field of the config.",
    )
    parser.add_argument("config", metavar="CONFIG", help="of the training; names the codec")
    parser.add_argument(
        "--out", required=True, type=config.local_folder, help="folder of the cache"
    )
    parser.add_argument("--recipe", help="of data.blend, by its name; each has its own cache")
    parser.add_argument(
        "--items", type=at_least(1), default=20_000, help="mixtures, whole shards of 64"
    )
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=8,
        help="mixtures encoded at once; rounded up to a multiple of the data-parallel devices",
    )
    add_process_options(parser)
    add_mesh_options(parser)
    return parser.parse_known_args(argv)


def make_cache_teacher(cfg: TrainConfig, rate: int, mesh: Mesh | None) -> shards.Teacher | None:
    """The alignment's teacher for waves at `rate` Hz; None if the config gives it no weight."""
    alignment = cfg.alignment
    if not alignment.weight:
        return None
    teacher = Compiled(make_teacher(alignment, mesh), mesh)

    def features(waves: np.ndarray) -> np.ndarray:
        vectors = teacher.on_batch(Cnn14.features, waves, sample_rate=rate, tensor=alignment.tensor)
        return np.asarray(vectors)

    return shards.Teacher(
        f"{alignment.teacher_checkpoint}, {alignment.tensor}",
        alignment.teacher.segment_s,
        features,
    )


@command
def main(argv: list[str]) -> None:
    """Writes or extends one cache."""
    options, flags = read_options(argv)
    cfg = config.from_cli([options.config, *flags], TrainConfig)
    data = cfg.data
    if data.blend and not options.recipe:
        names = ", ".join(recipe.name for recipe in data.blend)
        raise UserError(f"--recipe is missing: each of data.blend has its own cache: {names}")
    if options.recipe:
        data = named_recipe(data, options.recipe)
    check_writable(options.out, "--out")
    codec = make_codec(cfg)
    rate, hop = codec.config.sample_rate, codec.config.hop
    mixer = pipeline.mixer(data, rate, hop)
    mesh = mesh_of(options, lambda: 0)  # codec and teacher are small: every device has a copy
    compiled = Compiled(codec, mesh)
    shares = compiled.batch_shards
    rank = process_rank(options)
    tracks: AbstractContextManager[VideoTracks | None] = nullcontext(
        pipeline.video_tracks(mixer, hop)
    )
    if (vision := open_vision(cfg, codec, mesh)) is not None:
        tracks = open_tower_tracks(
            *(mixer, rate, hop, vision.at),
            name=cfg.vision_checkpoint,
            folder=options.out,
            rank=rank,
        )
    with tracks as video:
        finished = shards.write_cache(
            options.out,
            lambda number: mixer.draw(np.random.default_rng((data.seed, 1, number))),
            lambda waves: np.asarray(compiled.on_batch(Codec.encode, waves)),
            items=options.items,
            sample_rate=rate,
            hop=hop,
            samples=mixer.samples,
            codec=cfg.codec_checkpoint,
            name=options.recipe or "",
            recipe=pipeline.recipe(data),
            batch=shares * -(-options.batch // shares),
            teacher=make_cache_teacher(cfg, rate, mesh),
            video=video,
            waves=data.waves,
            rank=rank,
        )
    if isinstance(video, TowerTracks) and len(video.refusals):
        print(f"videos that are not used: {video.refusals} (their sound is)", file=sys.stderr)
    if not finished:
        print(
            f"process {rank.index} of {rank.count} is done; the last one finishes {options.out}",
            file=sys.stderr,
        )
