"""Trains the separator: `sam-audio train tiny --workdir runs/tiny`.

On several hosts run the same command on each; `sam_audio_jax/distributed.py` says how they meet.
Exit status: 0 when the run is done or was stopped by SIGTERM or Ctrl-C, 2 for an error that only a
change of the call, the config or the machine can mend, anything else for one that a new start may
get over.
"""

import pathlib
import sys

import jax

from sam_audio_jax import config, distributed, parallel
from sam_audio_jax.allocator import keep_freed_memory
from sam_audio_jax.cli.command import command
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.adapter import KEPT, digest
from sam_audio_jax.convert.codec import save_codec_folder
from sam_audio_jax.data.pipeline import separation_batches
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.in_training import check_evaluation, training_evaluation
from sam_audio_jax.nn.fingerprint import same_weights
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.frozen import (
    RANDOM,
    cache_notes,
    check_latents,
    encoded_sounds,
    kept_codec,
    load_start,
    make_audio_tower,
    make_codec,
)
from sam_audio_jax.train.objective import make_separator_training
from sam_audio_jax.workdir import Workdir

SOUNDS = "encoded_sounds"


def frozen_codec(workdir: Workdir, cfg: TrainConfig) -> Codec:
    """Returns the frozen codec: once there are checkpoints, the workdir's own copy of it."""
    return kept_codec(workdir, cfg) if workdir.steps() else make_codec(cfg)


def kept_base(
    workdir: Workdir, cfg: TrainConfig, start: PromptedSeparator | T5Encoder | None
) -> dict[str, str]:
    """What checkpoints keep of the base of adapters, by which it is known again; {} without any.

    Raises `UserError` where the run began beside other weights.
    """
    if not cfg.lora.rank or not isinstance(start, PromptedSeparator):
        return {}
    weights, began = digest(start), workdir.kept_in_checkpoint(KEPT)
    if began is not None and not same_weights(began, weights):
        raise UserError(
            f"{workdir.path} trains an adapter of weights {began}; init_from={cfg.init_from} has "
            f"the weights {weights} now"
        )
    return {KEPT: weights}


def kept_sounds(workdir: Workdir, cfg: TrainConfig) -> dict[str, list[str]]:
    """What checkpoints keep of the caches and labels; says where a run goes on with others."""
    sounds, began = encoded_sounds(cfg.data), workdir.kept_in_checkpoint(SOUNDS)
    if began not in (None, sounds) and jax.process_index() == 0:
        note = "note: the caches or labels are not those that the steps before were trained on"
        print(note, file=sys.stderr)
    return {SOUNDS: sounds}


def run(path: pathlib.Path, cfg: TrainConfig, *, profile: bool = False) -> None:
    """Trains the separator of a config in one workdir, from its newest checkpoint on."""
    if cfg.vision_checkpoint and not cfg.data.encoded:
        raise UserError(
            f"vision_checkpoint={cfg.vision_checkpoint} is read by `sam-audio prepare` alone, and "
            "there is no data.cache: make one, or leave it empty"
        )
    workdir = Workdir.open(path, cfg)
    mesh = parallel.make_mesh(cfg.mesh)
    codec = frozen_codec(workdir, cfg)
    if cfg.codec_checkpoint != RANDOM:
        check_latents(cfg.data, codec)
    distributed.run_on_first(
        lambda: [print(note, file=sys.stderr) for note in cache_notes(cfg.data)]
    )
    restored = bool(workdir.steps())
    # Adapters stand beside the weights that the run began with, which no checkpoint has.
    known = None if cfg.codec_checkpoint == RANDOM else codec
    start = None if restored and not cfg.lora.rank else load_start(cfg, mesh, known)
    kept = {"codec": config.to_dict(codec.config)} | kept_base(workdir, cfg, start)
    tower = make_audio_tower(workdir, cfg, codec, start)
    state, step, frozen = make_separator_training(
        cfg, codec, mesh, start, audio_tower=tower, restored=restored
    )
    rate, hop = cfg.codec.sample_rate, cfg.codec.hop
    index, count = parallel.process_rows(mesh)
    batches = separation_batches(
        cfg.data, rate, hop, cfg.batch, process_index=index, process_count=count
    )
    if not restored:
        distributed.run_on_first(lambda: save_codec_folder(workdir.codec, codec))
    loop.train_and_evaluate(
        cfg,
        workdir=workdir.path,
        state=state,
        step=step,
        batches=batches,
        mesh=mesh,
        frames_per_step=lambda: batches.frames,
        frozen=frozen,
        evaluate=training_evaluation(workdir, cfg, codec, mesh, frozen),
        profile=profile,
        kept=kept | kept_sounds(workdir, cfg),
    )


@command
def main(argv: list[str]) -> None:
    """Trains in one workdir."""
    path, profile, cfg = config.run_options(argv, __doc__, command="train", kind=TrainConfig)
    check_evaluation(cfg)
    keep_freed_memory()
    distributed.initialize()
    run(path, cfg, profile=profile)
