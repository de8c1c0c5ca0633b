"""Separates what a prompt describes from a recording, or many from a manifest.

sam-audio separate street.wav --text "dog barking" --span + 1.0 2.5 --out out
sam-audio separate street.mp4 --video street.mp4 --mask dog.mp4 --out out
sam-audio separate --manifest items.jsonl --out out

One recording leaves target.wav, residual.wav, spectrogram.png and, with a video, the video with the
target as its sound. A manifest (lines with id, audio and any of text, spans, track, video, mask,
like) leaves ID.target.wav, ID.residual.wav and done.jsonl. A second call goes on where the first
was stopped; items that fail are listed in failed.jsonl, and the exit status is then 1. Any number
of processes may share a manifest, each with its own --process I --processes N and the same folder;
they need not meet.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from sam_audio_jax import config
from sam_audio_jax.cli.command import (
    add_adapter_option,
    add_dtype_option,
    add_mesh_options,
    add_process_options,
    add_ranker_option,
    at_least,
    command,
    mesh_of,
    process_rank,
    ranker_paths,
)
from sam_audio_jax.convert.load import parameter_bytes
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import whole_folder
from sam_audio_jax.infer import inputs, output
from sam_audio_jax.infer.batch.ledger import count_done
from sam_audio_jax.infer.batch.run import Settings, check_run_folder, run
from sam_audio_jax.infer.manifest import BadLine, read_manifest
from sam_audio_jax.infer.options import FLAGS, SeparateOptions
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.video_prompts import make_clip

MANIFEST_ONLY = ("process", "processes")
PATHS = ("video", "mask", "like", "noise", "span_predictor")
ONE_RECORDING_ONLY = ("text", "span", "track", "video", "mask", "like", "noise", "overwrite")


def read_options(argv: list[str]) -> argparse.Namespace:
    """Parses the command line; raises UserError for a bad option or without any input."""
    parser = config.ArgumentParser(__doc__, command="separate")
    add = parser.add_argument
    add("input", nargs="?", help="a sound or video file")
    add("--manifest", type=pathlib.Path, help="many items, JSONL")
    add("--out", type=config.local_folder, required=True, help="folder of the results")
    add(
        "--text",
        action="append",
        help="what to separate, e.g. 'dog barking'; may be repeated: stems of several sounds",
    )
    add("--stems", help="texts, as speech,music,effects: one stem each, which add up to the input")
    add(
        "--span",
        nargs=3,
        action="append",
        metavar=("+|-", "START", "END"),
        help="seconds in which it sounds (+) or does not (-); may be repeated",
    )
    add("--track", type=at_least(1), help="of several audio tracks; default: as players choose")
    add("--video", help="the picture to the sound; without --mask it is masked already")
    add("--mask", help="of the object: a video, a folder of pictures, .npz or .json of regions")
    add(
        "--like", help="an example: a recording that sounds like the target, alone or beside a text"
    )
    add("--span-predictor", help="folder, HF id or pe-a-frame-{small,base,large}")
    add_ranker_option(parser)
    add("--checkpoint", default="tiny", help="shipped name, workdir or step, folder, HF id")
    add_adapter_option(parser)
    add_dtype_option(parser)
    for name, argument in FLAGS.items():
        argument = argument.copy()
        if "at_least" in argument:
            argument["type"] = at_least(argument.pop("at_least"))
        add(f"--{name.replace('_', '-')}", **argument)
    add("--noise", help=".npy with the noise itself, [frames, 2 * latent channels]")
    add("--overwrite", action="store_true", help="replace an earlier result of one recording")
    add_process_options(parser)
    add_mesh_options(parser)
    args = parser.parse_args(argv)
    if bool(args.input) == bool(args.manifest):
        raise UserError("give either one INPUT or --manifest ITEMS.jsonl")
    if args.stems is not None:
        if args.text:
            raise UserError("--text and --stems both name what to separate: give one of them")
        args.stems = [part.strip() for part in args.stems.split(",") if part.strip()]
        if len(args.stems) < (1 if args.rest else 2):
            raise UserError("--stems needs two texts or more, as speech,music (or --rest)")
    for name in MANIFEST_ONLY if args.input else ():
        if getattr(args, name) is not None:
            raise UserError(f"--{name} needs a --manifest to share")
    _check_effects(args)
    return args


def _check_effects(args: argparse.Namespace) -> None:
    """Raises UserError for an option that would have no effect without another."""
    for name in PATHS:
        if getattr(args, name) == "":
            raise UserError(f"--{name} is empty: give a path, or leave it out")
    if args.span_predictor is not None and not args.predict_spans:
        raise UserError("--span-predictor needs --predict-spans, which it is for")
    if args.ranker and args.candidates == 1:
        raise UserError("--ranker needs --candidates of 2 or more, which it ranks")
    if args.manifest:  # whose lines have the prompts
        return
    if args.mask and not args.video:
        raise UserError("--mask needs --video, the picture that it is of")
    if args.mask_keeps != FLAGS["mask_keeps"]["default"] and not args.mask:
        raise UserError(f"--mask-keeps {args.mask_keeps} needs --mask, of which it is a side")
    if args.rest and not (args.text or args.stems):
        raise UserError("--rest needs a --text, or --stems: it is what no text took")


@command
def main(argv: list[str]) -> int:
    """Separates one recording, or the items of a manifest; then 1 says that some failed."""
    args = read_options(argv)
    if args.manifest:
        return 0 if separate_many(args) else 1
    separate_one(args)
    return 0


def separate_one(args: argparse.Namespace) -> None:
    """Separates one recording; checks all that can be checked before it loads the networks."""
    options = settings(args).options
    output.check_result_folder(args.out, overwrite=args.overwrite)
    output.check_not_replaced(args.out, [args.input, args.video, args.mask, args.like])
    recording = inputs.read(args.input, track=args.track)
    _print_notes(recording.notes)
    seconds = recording.samples.shape[-1] / recording.sample_rate
    inputs.check_spans(args.span or (), seconds, args.input)
    texts = _texts(args)
    noise = None if args.noise is None else inputs.load_noise(args.noise)
    text = args.text[0] if args.text and not texts else None
    if not options.unprompted and not texts:
        words = inputs.check_text(text, "--text")
        inputs.require_prompt(words, args.span, args.video, args.input, args.like)
    model = load(args)
    model.pipeline.check_options(options)
    if texts:
        items = model.items(recording, texts, options=options, name=args.input)
    else:
        item = model.item(
            recording,
            text,
            args.span,
            video=make_clip(
                args.video,
                args.mask,
                options.mask_keeps,
                args.input,
                sound=args.input,
                track=args.track,
            ),
            like=args.like,
            name=args.input,
        )
        items = [item]
    item = items[-1]
    _print_notes([note for note in inputs.notes_of(items) if note not in recording.notes])
    print(f"separating {seconds:.1f} s", file=sys.stderr)
    if texts:
        stems = model.pipeline.separate_texts(items, options, noise)
    else:
        (stems,) = model.pipeline.separate_items(items, options, [noise])
    output.check_result_folder(args.out, overwrite=args.overwrite)  # others may have written there
    with whole_folder(args.out, overwrite=True) as folder:
        names, missing = output.write_one(folder, item, stems)
    _print_notes(stems.notes)
    for reason in missing:
        print(f"warning: {reason}", file=sys.stderr)
    print(f"wrote {', '.join(names)} to {args.out}", file=sys.stderr)


def _texts(args: argparse.Namespace) -> list[str]:
    """Returns the texts that are separated side by side; none if there is one prompt.

    Raises UserError for other prompts beside them, and for texts that cannot be stems.
    """
    texts = args.stems or args.text or []
    if not texts or (len(texts) < 2 and not args.stems and not args.rest):
        return []
    for name in ("span", "video", "like"):
        if getattr(args, name):
            raise UserError(
                f"--{name} prompts one sound: with several stems give it in a call of its own, "
                "or spans for each text in a manifest"
            )
    return [text for text, _ in inputs.check_texts(texts, None, args.input)]


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def separate_many(args: argparse.Namespace) -> bool:
    """Separates the items of a manifest; returns whether every item is done."""
    for name in ONE_RECORDING_ONLY:
        if getattr(args, name) not in (None, False):
            raise UserError(f"--{name} is for one recording; with --manifest it is in the lines")
    bad_lines: list[BadLine] = []
    entries = read_manifest(args.manifest, bad_lines, texts=args.stems or (), rest=args.rest)
    if args.mask_keeps != FLAGS["mask_keeps"]["default"] and not any(e.mask for e in entries):
        raise UserError(f"--mask-keeps {args.mask_keeps} needs a mask in a line of the manifest")
    rank = process_rank(args)
    check_run_folder(args.out, settings(args))
    failed = run(load(args), entries, args.out, settings(args), rank, bad_lines)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    for line in bad_lines:
        print(f"failed: {line.reason}", file=sys.stderr)
    count, ids = len(entries) + len(bad_lines), {entry.id for entry in entries}
    if rank.count == 1:
        print(f"{len(entries) - len(failed)} of {count} are in {args.out}", file=sys.stderr)
    else:
        print(
            f"process {rank.index} of {rank.count} is done: {len(failed)} of its items failed; "
            f"{count_done(args.out, ids)} of the {count} of all processes are in {args.out}",
            file=sys.stderr,
        )
    return not (failed or bad_lines)


def settings(args: argparse.Namespace) -> Settings:
    """Returns the options that do not depend on the recording and its prompts."""
    fields = {name: getattr(args, name) for name in FLAGS}
    options = SeparateOptions(**fields, joint=args.stems is not None)
    return Settings(
        checkpoint=args.checkpoint,
        span_predictor=args.span_predictor,
        rankers=ranker_paths(args) or None,
        adapters=args.adapter or None,
        dtype=args.dtype,
        stems=args.stems,
        options=options,
    )


def load(args: argparse.Namespace) -> SAMAudio:
    """Loads the checkpoint on the mesh of the options."""
    print(f"loading {args.checkpoint}", file=sys.stderr)
    name = inputs.check_checkpoint(args.checkpoint)
    mesh = mesh_of(args, lambda: parameter_bytes(name))
    return SAMAudio.from_pretrained(
        args.checkpoint,
        dtype=args.dtype,
        span_predictor=args.span_predictor,
        rankers=ranker_paths(args),
        adapters=args.adapter,
        mesh=mesh,
    )
