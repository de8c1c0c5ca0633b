"""Trains an audio tower among word vectors: `sam-audio train-audio-text audio_text_tiny ...`.

sam-audio convert --from wordllama --to runs/vectors
sam-audio train-audio-text audio_text_tiny --workdir runs/tower --data.cache CACHE \\
    --data.valid-cache HELD_OUT

A cache is one of `sam-audio prepare`: its stems and their captions are the data. The tower with
averaged weights is in WORKDIR/audio_tower; `sam-audio train --like.tower-checkpoint` and the scorer
of a model read it (docs/training.md, "Audio tower"). Several hosts and exit status are as for
`sam-audio train`.
"""

from sam_audio_jax import config, distributed, parallel
from sam_audio_jax.allocator import keep_freed_memory
from sam_audio_jax.cli.command import command
from sam_audio_jax.convert.audio_tower import open_audio_tower
from sam_audio_jax.convert.load import load_text_encoder
from sam_audio_jax.data.captioned_latents import CaptionedLatents, captioned_batches
from sam_audio_jax.encoders.audio_tower import (
    PROBE_FRAMES,
    AudioTextSpace,
    table_fingerprint,
    words_probe,
)
from sam_audio_jax.encoders.text_means import TextMeans
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.audio_text_in_training import audio_text_evaluation, check_best_metric
from sam_audio_jax.train import loop
from sam_audio_jax.train.audio_text_objective import initial_tower, make_audio_text_training
from sam_audio_jax.train.config import AudioTextTrainConfig
from sam_audio_jax.workdir import Workdir

KEPT = "space"  # what checkpoints keep: the codec and the word vectors that a tower is between


@command
def main(argv: list[str]) -> None:
    """Trains in one workdir, from its newest checkpoint on."""
    path, profile, cfg = config.run_options(
        argv, __doc__, command="train-audio-text", kind=AudioTextTrainConfig
    )
    if not cfg.data.cache:
        raise UserError("data.cache is empty: name a cache of `sam-audio prepare` by --data.cache")
    texts = _word_vectors(cfg)
    sounds = CaptionedLatents(cfg.data, cfg.data.cache)
    check_sizes(cfg, sounds, texts)
    held_out = None
    if cfg.data.valid_cache:
        held_out = CaptionedLatents(cfg.data, cfg.data.valid_cache, sounds.captions)
        sounds.check_codec(held_out)
    check_best_metric(cfg, held_out, len(sounds.captions))
    keep_freed_memory()
    distributed.initialize()
    workdir = Workdir.open(path, cfg)
    space = space_of(sounds, texts)
    check_space(workdir, space)
    mesh = parallel.make_mesh(cfg.mesh)
    means = texts(sounds.captions)
    tower = initial_tower(cfg, means, mesh)
    state, step, frozen = make_audio_text_training(cfg, tower, means, mesh)
    index, count = parallel.process_rows(mesh)
    loop.train_and_evaluate(
        cfg,
        workdir=workdir.path,
        state=state,
        step=step,
        batches=captioned_batches(sounds, cfg.batch, index=index, count=count),
        mesh=mesh,
        frames_per_step=cfg.batch * sounds.frames,
        frozen=frozen,
        evaluate=audio_text_evaluation(
            *(workdir, cfg, tower, space, texts, held_out),
            len(sounds.captions),
            mesh,
        ),
        profile=profile,
        kept={KEPT: config.to_dict(space)},
    )


def _word_vectors(cfg: AudioTextTrainConfig) -> TextMeans:
    """The word vectors of the config. Raises `UserError` where it names none."""
    if not cfg.text_checkpoint:
        raise UserError(
            "text_checkpoint is empty: name a text encoder without layers (a folder of "
            "`sam-audio convert --from wordllama`)"
        )
    encoder, tokenizer = load_text_encoder(cfg.text_checkpoint)
    if not tokenizer:
        raise UserError(f"text_checkpoint={cfg.text_checkpoint} has no tokenizer beside it")
    return TextMeans(encoder, tokenizer_for(tokenizer, normalizes=True))


def check_sizes(cfg: AudioTextTrainConfig, sounds: CaptionedLatents, texts: TextMeans) -> None:
    """Raises `UserError` unless the tower has the sizes of the latents and of the vectors.

    Also for sounds that are all called alike: a loss of 0 would show nothing.
    """
    tower = cfg.audio_tower
    if tower.channels != sounds.channels:
        raise UserError(
            f"audio_tower.channels={tower.channels}, but {cfg.data.cache} has latents of "
            f"{sounds.channels}"
        )
    width = texts.table.shape[1]
    if tower.embedding != width:
        raise UserError(
            f"audio_tower.embedding={tower.embedding}, but text_checkpoint={cfg.text_checkpoint} "
            f"has vectors of {width}"
        )
    if not any(sounds.example(number)["wrong"].any() for number in range(len(sounds.sounds))):
        raise UserError(
            f"{cfg.data.cache} has no caption that is wrong of any of its sounds, as "
            f"{sounds.captions[0]!r}: a tower learns to tell captions apart"
        )


def check_space(workdir: Workdir, space: AudioTextSpace) -> None:
    """Raises `UserError` where a run began on latents or among word vectors of other networks.

    Checkpoints of an earlier version do not say; then the tower of the newest evaluation does.
    """
    if not workdir.steps():
        return
    kept = workdir.kept_in_checkpoint(KEPT)
    if kept is not None:
        began = config.from_dict(AudioTextSpace, kept, where=f"{KEPT}.")
    elif (workdir.audio_tower / "config.json").is_file():
        began = open_audio_tower(workdir.audio_tower).space
    else:
        return
    began.check_same(space, f"the tower of {workdir.path}")


def space_of(sounds: CaptionedLatents, texts: TextMeans) -> AudioTextSpace:
    """What a tower is trained between that is trained on these sounds and texts."""
    index = sounds.cache.index
    return AudioTextSpace(
        sample_rate=index["sample_rate"],
        hop=index["hop"],
        frames=sounds.frames,
        noise_frames=min(index["samples"] // index["hop"], PROBE_FRAMES),
        latents=tuple(index["probe"]),
        words=words_probe(texts),
        table=table_fingerprint(texts),
    )
