"""Pseudo-labels: separates the captioned sounds of recordings and scores the results.

sam-audio label recordings.jsonl --checkpoint runs/small --prompts text --out labels
sam-audio train small --data.cache latents --data.labels.folder labels --data.labels.remix 5

The manifest is that of a training or of `sam-audio separate`; every line gets exactly one result,
one that cannot be labelled the reason why. No threshold is applied: a training chooses its own
(docs/data.md, "Pseudo-labels"). A second call goes on where the first was stopped. Any number of
processes may share the work, each with its own --process I --processes N and the same folder; they
need not meet, and the last one to end writes report.html.
"""

import argparse
import collections
import pathlib
import sys

from sam_audio_jax import config
from sam_audio_jax.cli.command import (
    add_mesh_options,
    add_process_options,
    at_least,
    command,
    mesh_of,
    process_rank,
)
from sam_audio_jax.convert.load import parameter_bytes
from sam_audio_jax.data.label_scores import LABEL_SCORES
from sam_audio_jax.data.labels import SCORES
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_writable, iter_jsonl
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.options import FLAGS
from sam_audio_jax.infer.scorer_files import load_scorers, parse_scorers
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.label.group_labels import GroupLabeller
from sam_audio_jax.label.label_inputs import read_inputs
from sam_audio_jax.label.label_settings import LabelSettings, chosen_scores
from sam_audio_jax.label.labelling import label, make_plan
from sam_audio_jax.label.network_scores import LabelNetworks
from sam_audio_jax.label.prompt_kinds import KINDS, PromptKind
from sam_audio_jax.label.tagging import ClapTagger, read_vocabulary
from sam_audio_jax.train.frozen import RANDOM
from sam_audio_jax.workdir import find_checkpoint

OPTIONS = ("seed", "method", "steps", "refine")  # of the separation, as in `sam-audio separate`


def read_options(argv: list[str]) -> argparse.Namespace:
    """Parses the command line; raises UserError for a bad option."""
    parser = config.ArgumentParser(__doc__, command="label")
    add = parser.add_argument
    add("manifest", type=pathlib.Path, metavar="MANIFEST", help="recordings with captions, JSONL")
    add("--out", type=config.local_folder, required=True, help="folder of the labels")
    add("--checkpoint", default="tiny", help="shipped name, workdir or step, folder, HF id")
    add("--prompts", default="text", choices=KINDS, help="what the model is prompted by")
    add(
        "--filters",
        nargs="+",
        default=(),
        choices=LABEL_SCORES,
        metavar="NAME",
        help="whose scores are computed, of "
        f"{', '.join(LABEL_SCORES)}; default: all that are possible",
    )
    add(
        "--scorers",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="trained networks of filters: judge=DIR clap=FILE aesthetics=DIR imagebind=FILE",
    )
    add(
        "--vocabulary",
        type=pathlib.Path,
        metavar="FILE",
        help="phrases, one a line: what has no caption gets the one that CLAP finds the nearest",
    )
    add(
        "--phrases",
        action="store_true",
        help='captions are sentences: "A dog is barking loudly." prompts as "dog barking"',
    )
    for name in OPTIONS:
        argument = FLAGS[name].copy()
        if "at_least" in argument:
            argument["type"] = at_least(argument.pop("at_least"))
        add(f"--{name}", **argument)
    add("--longest-s", type=float, default=60.0, help="longer recordings are counted, not labelled")
    add("--per-shard", type=at_least(1), default=64, help="inputs of a shard; a kill loses one")
    add_process_options(parser)
    add_mesh_options(parser)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> int:
    """Labels the inputs of a manifest; 1 says that none of them could be labelled."""
    args = read_options(argv)
    manifest = read_inputs(args.manifest, phrases=args.phrases)
    paths = parse_scorers(args.scorers)
    for scorer, path in paths.items():
        if path == RANDOM:
            raise UserError(f"--scorers {scorer}={path}: a filter needs trained weights")
    vocabulary = read_vocabulary(args.vocabulary) if args.vocabulary else []
    if vocabulary and "clap" not in paths:
        raise UserError("--vocabulary needs --scorers clap=FILE, which chooses among its phrases")
    settings = LabelSettings(
        prompts=args.prompts,
        scores=chosen_scores(args.filters, PromptKind(args.prompts), list(paths), manifest.inputs),
        longest_s=args.longest_s,
        per_shard=args.per_shard,
        vocabulary=tuple(vocabulary),
        phrases=args.phrases,
        **{name: getattr(args, name) for name in OPTIONS},
    )
    check_writable(args.out, "--out")
    name = inputs.check_checkpoint(args.checkpoint)
    check_trained(name)
    rank = process_rank(args)
    mesh = mesh_of(args, lambda: parameter_bytes(name))
    networks = LabelNetworks(load_scorers(paths, mesh))
    print(f"loading {name}", file=sys.stderr)
    model = SAMAudio.from_pretrained(name, mesh=mesh)
    tagger = ClapTagger(networks.clap, vocabulary) if vocabulary else None
    labeller = GroupLabeller(model, settings, networks, name, tagger)
    plan = make_plan(labeller, manifest)
    if not label(labeller, manifest, args.out, plan, rank):
        print(
            f"process {rank.index} of {rank.count} is done; the last one finishes {args.out}",
            file=sys.stderr,
        )
        return 0
    return 0 if print_summary(args.out) else 1


def check_trained(name: str) -> None:
    """Raises UserError for a checkpoint of a run whose frozen parts have random weights."""
    checkpoint = find_checkpoint(name)
    if checkpoint is None:
        return
    fields = checkpoint.fields("separator")
    frozen = {"codec_checkpoint": True, "text_checkpoint": not fields["train_text"]}
    for field, is_frozen in frozen.items():
        if is_frozen and fields.get(field) == RANDOM:
            raise UserError(
                f"--checkpoint {name} was trained with {field}={RANDOM}: labels need trained "
                "weights everywhere"
            )


def print_summary(out: pathlib.Path) -> int:
    """Prints what became of the inputs; returns the number of labels."""
    counts = collections.Counter(
        entry.get("reason", "labelled") for _, entry in iter_jsonl(out / SCORES)
    )
    labels = counts.pop("labelled", 0)
    for reason, count in counts.most_common():
        print(f"no label: {count} inputs: {reason}", file=sys.stderr)
    total = labels + sum(counts.values())
    print(f"{labels} of {total} inputs are labelled in {out}", file=sys.stderr)
    return labels
