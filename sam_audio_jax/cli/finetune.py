"""Trains a model on own recordings, and says what that changed.

sam-audio finetune SOUNDS --check --workdir check
sam-audio finetune SOUNDS --from tiny --workdir my_model
sam-audio finetune SOUNDS --from facebook/sam-audio-small --lora 16 --workdir my_adapter

SOUNDS is a folder with one folder for each class (its name is the prompt), a folder with one folder
for each song and in it one file for each stem (file names are the prompts), or a manifest. All of
it is decoded and checked first; DIR/data.html says what was found. A part is held out by recording
and separated before and after: DIR/report.html. DIR becomes a model folder, with --lora that of an
adapter (`sam-audio separate --adapter DIR`). The same call goes on after a stop.
"""

import argparse
import functools
import pathlib
import shutil
import sys

from sam_audio_jax import config, parallel
from sam_audio_jax.allocator import keep_freed_memory
from sam_audio_jax.cli import prepare, train
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.convert.load import Described, describe_model
from sam_audio_jax.convert.model_files import shipped_folder
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.in_training import check_evaluation
from sam_audio_jax.finetune.before_after import evaluate, model_before
from sam_audio_jax.finetune.data_page import data_page, lines
from sam_audio_jax.finetune.finetune_folder import FinetuneFolder
from sam_audio_jax.finetune.mixed_bench import is_bench_of, write_bench
from sam_audio_jax.finetune.outcome import write_outcome
from sam_audio_jax.finetune.own_recordings import OwnRecordings, look
from sam_audio_jax.finetune.split_sources import split
from sam_audio_jax.finetune.start_config import start_config
from sam_audio_jax.infer import inputs
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.workdir import Workdir

ENCODED_AHEAD = 512  # mixtures on a CPU, where encoding them at every step costs most of it


# Fields of the config that options of this command decide, and those options.
DECIDED = {
    "init_from": "--from",
    "codec_checkpoint": "--from",
    "text_checkpoint": "--from",
    "data.source.manifests": "SOUNDS",
    "data.source.split": "SOUNDS",
    "data.source.multitracks": "SOUNDS",
    "data.source.tfds": "SOUNDS",
    "data.blend": "SOUNDS",
    "lora.rank": "--lora",
}


def read_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the flags that are left for the config."""
    parser = config.ArgumentParser(
        __doc__,
        command="finetune",
        epilog="Every other --FIELD VALUE overrides a field of the training's config, as --steps.",
    )
    add = parser.add_argument
    add("sounds", metavar="SOUNDS", help="folder of classes or of songs, or a manifest .jsonl")
    add("--from", dest="source", help="the model to start from: shipped name, workdir, folder, id")
    add("--workdir", type=config.local_folder, required=True, help="folder to make, or to go on in")
    add("--lora", type=at_least(1), metavar="RANK", help="train adapters of this rank alone")
    add("--check", action="store_true", help="look at the recordings and stop")
    add("--layout", choices=("classes", "songs"), help="of the folder; default: by its names")
    add(
        "--items",
        type=at_least(0),
        help="mixtures that are encoded ahead, once; 0: each step mixes anew; default: "
        f"{ENCODED_AHEAD} on a CPU, else 0",
    )
    return parser.parse_known_args(argv)


@command
def main(argv: list[str]) -> int:
    """Looks, lays out, evaluates, trains, evaluates again, and writes what came out."""
    options, flags = read_options(argv)
    folder = FinetuneFolder(options.workdir)
    name, model = "", None
    if not options.check:
        if not options.source:
            raise UserError("--from is missing: name the model to start from, as --from tiny")
        name = _absolute(inputs.check_checkpoint(options.source))
        model = describe_model(name)
    elif flags:
        raise UserError(f"{flags[0]} has no effect with --check")
    check_apart(pathlib.Path(options.sounds), folder.path)
    folder.claim()
    own = look_at(options, folder)
    if model is None:
        return 0
    cfg = lay_out(options, flags, folder, own, name, model)
    keep_freed_memory()
    evaluate(model_before(name, cfg), cfg, folder, "before")
    if cfg.data.cache == str(folder.latents.absolute()) and (status := encode(options, folder)):
        return status
    train.run(folder.workdir.path, cfg)
    step = folder.workdir.steps()[-1]
    if step < cfg.steps and not _ended_by_the_clock(folder, cfg, step):
        print(f"stopped after step {step}: the same call goes on", file=sys.stderr)
        return 0
    for line in write_outcome(folder, own, name, model, cfg, step):
        print(line)
    print(f"report: {folder.path / 'report.html'}")
    return 0


def _absolute(name: str) -> str:
    """A model's name that means the same in every working directory."""
    path = pathlib.Path(name)
    return name if shipped_folder(name) or not path.is_dir() else str(path.absolute())


def check_apart(sounds: pathlib.Path, workdir: pathlib.Path) -> None:
    """Raises `UserError` where what is written would be read as recordings at a later call."""
    inner, outer = workdir.resolve(), sounds.resolve()
    if sounds.is_dir() and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        raise UserError(
            f"--workdir {workdir} and the sounds in {sounds} lie in one another: clips that are "
            "written there would be trained on; name a folder beside it"
        )


def look_at(options: argparse.Namespace, folder: FinetuneFolder) -> OwnRecordings:
    """What is in the recordings, printed and as data.html, with what is held out.

    The page is there, too, where `split` raises `UserError`.
    """
    own = look(options.sounds, options.layout)
    try:
        own = split(own)
    finally:
        folder.write_page(data_page(own))
        for line in lines(own):
            print(line)
        print(f"data: {folder.path / 'data.html'}")
    return own


def lay_out(
    options: argparse.Namespace,
    flags: list[str],
    folder: FinetuneFolder,
    own: OwnRecordings,
    name: str,
    model: Described,
) -> TrainConfig:
    """Writes manifest, bench and config; what was made of other recordings is removed."""
    cache = ["--data.cache", str(folder.latents.absolute())] if encoded_ahead(options) else []
    base = start_config(name, model, own, folder.path, options.lora or 0)
    cfg = config.with_flags(base, [*cache, *flags])
    check_decided(base, cfg)
    if cfg.train_text and model.audio_tower:
        print(
            f"note: --train-text changes the word vectors of {name}, among which its audio tower "
            "was trained: what comes out has none, and cannot be prompted by an example",
            file=sys.stderr,
        )
    rate, seconds = model.codec.config.sample_rate, cfg.data.mix.seconds
    changed = folder.write_data(own)
    # A run that has begun refuses another length itself, and keeps its bench.
    if changed or not (folder.workdir.steps() or is_bench_of(folder.bench, rate, seconds)):
        for stale in (folder.bench, folder.latents, folder.evaluation("")):
            shutil.rmtree(stale, ignore_errors=True)
    if not folder.bench.is_dir():
        count = write_bench(own, folder.bench, rate, seconds)
        print(f"{count} held-out mixtures: {folder.bench}", file=sys.stderr)
    if folder.workdir.steps():  # another config is refused before it replaces that of the run
        Workdir.open(folder.workdir.path, cfg)
    folder.write_config(cfg)
    check_evaluation(cfg)
    return cfg


def check_decided(base: TrainConfig, cfg: TrainConfig) -> None:
    """Raises `UserError` for flags of fields that an option decides, and for those without effect.

    Evaluations, texts, page and card are of what the options name.
    """
    for field, option in DECIDED.items():
        value, wanted = (functools.reduce(getattr, field.split("."), one) for one in (cfg, base))
        if value != wanted:
            raise UserError(f"--{field.replace('_', '-')} is decided by {option}: leave it out")
    if cfg.lora.rank and cfg.sampler != base.sampler:
        raise UserError(
            "--sampler has no effect with --lora: an adapter keeps the solver of its base"
        )


def encoded_ahead(options: argparse.Namespace) -> int:
    """How many mixtures are encoded before the training; 0: none."""
    if options.items is not None:
        return options.items
    return ENCODED_AHEAD if parallel.platform() == "cpu" else 0


def encode(options: argparse.Namespace, folder: FinetuneFolder) -> int:
    """Renders and encodes mixtures of the training once; returns the status of that command."""
    items = str(encoded_ahead(options) or ENCODED_AHEAD)  # 0: a flag has named the cache
    return prepare.main([str(folder.train_file), "--out", str(folder.latents), "--items", items])


def _ended_by_the_clock(folder: FinetuneFolder, cfg: TrainConfig, step: int) -> bool:
    """Whether the training ended at `max_minutes`: then alone is an odd step evaluated."""
    evaluated = [x["step"] for x in folder.workdir.read_metrics() if x["group"] == "eval"]
    return bool(cfg.max_minutes) and step in evaluated
