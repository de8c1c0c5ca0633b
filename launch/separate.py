"""Separates what a prompt means from a recording, or many from a manifest.

python launch/separate.py street.wav --text "dog barking" --span + 1.0 2.5 --out out
python launch/separate.py --manifest items.jsonl --out out

One recording leaves target.wav, residual.wav and spectrogram.png. A manifest (lines with id, audio
and any of text, spans) leaves ID.target.wav, ID.residual.wav and done.jsonl, and goes on where it
was stopped; items that fail are listed in failed.jsonl, and the exit status is then 1.
"""

import argparse
import pathlib
import sys

import jax

from sam_audio_jax import SAMAudio, parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs, manifest, output


def options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
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
    add("--checkpoint", default="tiny", help="shipped name, workdir or step, folder, HF id")
    add("--refine", choices=("wiener",), help="divide the recording itself: all channels, its rate")
    add("--method", choices=("midpoint", "euler", "heun"), help="of the solver")
    add("--steps", type=int, help="of the solver")
    add("--seed", type=int, default=0, help="of the noise: the same seed gives the same bytes")
    add("--noise", help=".npy with the noise itself, [frames, 2 * latent channels]")
    add("--overwrite", action="store_true", help="replace an earlier result of one recording")
    parser.error = refuse
    return parser.parse_args(argv)


def refuse(message: str):
    raise UserError(message)


def one(given: argparse.Namespace) -> int:
    """Everything that can be refused is refused before the networks are loaded."""
    output.check_out(given.out, overwrite=given.overwrite)
    recording = inputs.read(given.input, None)
    seconds = recording.samples.shape[-1] / recording.sample_rate
    inputs.check_spans(given.span or (), seconds, given.input)
    noise = inputs.load_noise(given.noise) if given.noise else None
    if not given.text and not given.span:
        print("note: neither text nor span: the model chooses what to separate", file=sys.stderr)
    model = load(given.checkpoint)
    item = model.item(given.input, given.text, given.span, name=given.input)
    print(f"separating {seconds:.1f} s", file=sys.stderr)
    (stems,) = model.separate_items(
        [item],
        method=given.method,
        steps=given.steps,
        seed=given.seed,
        noises=[noise],
        refine=given.refine,
    )
    with output.whole_folder(given.out) as folder:
        output.write_one(folder, item, stems)
    print(f"wrote {', '.join(output.ONE_ITEM)} to {given.out}", file=sys.stderr)
    return 0


def many(given: argparse.Namespace) -> int:
    for name in ("text", "span", "noise", "overwrite"):
        if getattr(given, name):
            raise UserError(f"--{name} is for one recording; with --manifest it is in the lines")
    entries = manifest.read_manifest(given.manifest)
    settings = manifest.Settings(
        checkpoint=given.checkpoint,
        seed=given.seed,
        method=given.method,
        steps=given.steps,
        refine=given.refine,
    )
    manifest.check_out(given.out, settings)
    failed = manifest.run(load(given.checkpoint), entries, given.out, settings)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    print(f"{len(entries) - len(failed)} of {len(entries)} are in {given.out}", file=sys.stderr)
    return 1 if failed else 0


def load(checkpoint: str) -> SAMAudio:
    print(f"loading {checkpoint}", file=sys.stderr)
    mesh = parallel.make_mesh(parallel.MeshConfig()) if jax.device_count() > 1 else None
    return SAMAudio.from_pretrained(checkpoint, mesh=mesh)


def main(argv: list[str]) -> int:
    try:
        given = options(argv)
        if bool(given.input) == bool(given.manifest):
            raise UserError("give either one INPUT or --manifest ITEMS.jsonl")
        return many(given) if given.manifest else one(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
