"""What `launch/separate.py` understands: its options, one recording, many from a manifest."""

import argparse
import dataclasses
import os
import pathlib
import sys

import jax

from sam_audio_jax import config, parallel
from sam_audio_jax.distributed import ProcessRank, rank_from_environment
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs, manifest, output
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.video import KEEP

OF_MANIFESTS = ("process", "processes")
OF_LINES = ("text", "span", "video", "mask", "noise", "overwrite")  # not beside a manifest


def read_options(argv: list[str], description: str) -> argparse.Namespace:
    """UserError: an option that does not exist or cannot be understood, or none to work on."""
    parser = config.ArgumentParser(description)
    add = parser.add_argument
    add("input", nargs="?", help="a sound or video file")
    add("--manifest", type=pathlib.Path, help="many items, JSONL")
    add("--out", type=pathlib.Path, required=True, help="folder of the results")
    add("--text", help="what to separate, e.g. 'dog barking'")
    add(
        "--span",
        nargs=3,
        action="append",
        metavar=("+|-", "START", "END"),
        help="seconds in which it sounds (+) or does not (-); may be repeated",
    )
    add("--video", help="the picture to the sound; without --mask it is masked already")
    add("--mask", help="of the object: a video, a folder of pictures, .npz or .json of regions")
    add("--mask-keeps", choices=KEEP, default="object", help="what of the video stays visible")
    add("--predict-spans", action="store_true", help="find the spans of texts without any")
    add("--span-predictor", help="folder, HF id or pe-a-frame-{small,base,large}")
    add("--candidates", type=int, default=1, help="solves, of which the best is kept")
    add("--checkpoint", default="tiny", help="shipped name, workdir or step, folder, HF id")
    add("--refine", choices=("wiener",), help="divide the recording itself: all channels, its rate")
    add("--method", choices=("midpoint", "euler", "heun"), help="of the solver")
    add("--steps", type=int, help="of the solver")
    add("--seed", type=int, default=0, help="of the noise: the same seed gives the same bytes")
    add("--noise", help=".npy with the noise itself, [frames, 2 * latent channels]")
    add("--overwrite", action="store_true", help="replace an earlier result of one recording")
    add("--processes", type=int, help="that share the manifest; default: by the environment")
    add("--process", type=int, help="which of them this one is, from 0")
    given = parser.parse_args(argv)
    if bool(given.input) == bool(given.manifest):
        raise UserError("give either one INPUT or --manifest ITEMS.jsonl")
    for name in OF_MANIFESTS if given.input else ():
        if getattr(given, name) is not None:
            raise UserError(f"--{name} needs a --manifest to share")
    return given


def separate_one(given: argparse.Namespace) -> None:
    """Everything that can be refused is refused before the networks are loaded."""
    output.check_out(given.out, overwrite=given.overwrite)
    recording = inputs.read(given.input, None)
    seconds = recording.samples.shape[-1] / recording.sample_rate
    del recording  # an hour of it would be held beside the stems
    inputs.check_spans(given.span or (), seconds, given.input)
    if given.mask and not given.video:
        raise UserError("--mask needs --video, the picture that it is of")
    noise = inputs.load_noise(given.noise) if given.noise else None
    if not (given.text or given.span or given.video):
        print("note: no text, span or video: the model chooses what to separate", file=sys.stderr)
    model = load(given)
    options = settings(given).options(model)
    item = model.item(
        given.input,
        given.text,
        given.span,
        video=given.video,
        mask=given.mask,
        mask_keeps=given.mask_keeps,
        name=given.input,
    )
    print(f"separating {seconds:.1f} s", file=sys.stderr)
    (stems,) = model.separate_items([item], options, [noise])
    with output.whole_folder(given.out) as folder:
        written = output.write_one(folder, item, stems)
    print(f"wrote {', '.join(written)} to {given.out}", file=sys.stderr)


def separate_many(given: argparse.Namespace) -> bool:
    """Whether every item of the manifest is there now."""
    for name in OF_LINES:
        if getattr(given, name):
            raise UserError(f"--{name} is for one recording; with --manifest it is in the lines")
    entries = manifest.read_manifest(given.manifest)
    place = find_place(given)
    manifest.check_out(given.out, settings(given))
    failed = manifest.run(load(given), entries, given.out, settings(given), place)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if place.count == 1:
        print(f"{len(entries) - len(failed)} of {len(entries)} are in {given.out}", file=sys.stderr)
    else:
        print(
            f"process {place.index} of {place.count} has ended: {len(failed)} of its items failed; "
            f"{given.out} holds what all have made",
            file=sys.stderr,
        )
    return not failed


def find_place(given: argparse.Namespace) -> ProcessRank:
    """By the options, else by the environment. UserError: one option without the other."""
    if (given.process is None) != (given.processes is None):
        raise UserError("--process and --processes go together")
    if given.processes is None:
        return rank_from_environment(os.environ)
    return ProcessRank(given.process, given.processes)


def settings(given: argparse.Namespace) -> manifest.Settings:
    """The options of how to separate, which do not depend on what."""
    names = (field.name for field in dataclasses.fields(manifest.Settings))
    return manifest.Settings(**{name: getattr(given, name) for name in names})


def load(given: argparse.Namespace) -> SAMAudio:
    print(f"loading {given.checkpoint}", file=sys.stderr)
    mesh = parallel.make_mesh(parallel.MeshConfig()) if jax.device_count() > 1 else None
    return SAMAudio.from_pretrained(
        given.checkpoint, span_predictor=given.span_predictor, mesh=mesh
    )
