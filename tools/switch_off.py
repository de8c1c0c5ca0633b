"""What each part of the recipe of `tiny` is worth: the same training with one part switched off.

python -m tools.switch_off --cache CACHE --bench BENCH --out runs/switch_off --steps 1500

Trains `tiny@vectors`, the recipe of the shipped model, and each recipe that differs from it in one
part, from scratch, with equal updates and seed. Parts of the prompts need no mixtures of their own:
those trainings read CACHE, the cache of `tiny@words`. For a part of the mixtures a cache is made in
OUT/caches, as large as CACHE and from the same recordings and seed. All are evaluated on the
held-out mixtures of BENCH, refined. OUT/table.md has the means, and what each part that is off
changes, over pairs of the same mixture, with intervals. A call that was stopped is continued by the
same one; each step is a command of `sam-audio` in its own process. Flags of the config are for all
trainings.
"""

import argparse
import pathlib
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import load_bench
from sam_audio_jax.eval.prompting import ABSENT, WORDINGS
from sam_audio_jax.eval.scoring import ABSENT_LEVEL, REWORDED
from sam_audio_jax.eval.statistics import bootstrap, interval_text
from sam_audio_jax.files import read_object, whole_file
from tools.experiment import claim, evaluate, prepare, train

WHOLE = "vectors"  # the recipe with all parts on
PROMPTED = {  # they differ in prompts, and share the cache of `words`
    WHOLE: "all parts",
    "words": "a text encoder of its own instead of frozen word vectors",
    "no-pairs": "without both prompts of a mixture in one batch",
    "no-absent": "without prompts for sounds that are absent",
    "no-wordings": "without other wordings",
    "no-alternatives": "without alternative captions",
}
MIXED = {  # they differ in mixtures, and each has a cache of its own
    "no-captions": "half of the recordings drawn by their captions, which count alike",
    "no-near": "without near classes as residuals",
    "no-single": "without single events",
    "no-filters": "without filters",
    "no-offset": "without offsets",
    "no-speed": "without changes of speed",
    "no-level": "without changes of level",
}
PARTS = PROMPTED | MIXED
PROMPTS = ("text", "text+span", *WORDINGS, ABSENT)
ABSENT_COLUMN = "absent sound, median, dB of the mixture"
Scores = dict[tuple[str, ...], float]  # by mixture, and by wording
Results = Mapping[str, Any]


def _items(results: Results, kind: str, column: str) -> Scores:
    """A column of the refined stems by one kind of prompt."""
    return {
        (item["setting"], item["id"]): float(item[column])
        for item in results["items"]
        if item["row"] == f"model/wiener/{kind}" and item.get(column) is not None
    }


def _following(results: Results) -> Scores:
    """100 where the text of a mixture of two sources is followed, else 0."""
    return {
        (item["setting"], item["id"]): 100.0 * item["following"]
        for item in results["following"]
        if item["row"] == "model/wiener/text"
    }


def _reworded(results: Results) -> Scores:
    """What each other wording changes, by mixture and wording."""
    return {
        (item["setting"], item["id"], item["row"]): float(item[REWORDED])
        for item in results["reworded"]
        if item["row"].startswith("model/wiener/") and item[REWORDED] is not None
    }


def columns_of(results: Results, known: Collection[str], new: Collection[str]) -> dict[str, Scores]:
    """What the table shows of one evaluation; `known` and `new` are ids of mixtures."""
    by_text = _items(results, "text", "sisdri")
    return {
        "text, dB": by_text,
        "known captions": {key: value for key, value in by_text.items() if key[1] in known},
        "new captions": {key: value for key, value in by_text.items() if key[1] in new},
        "text + span, dB": _items(results, "text+span", "sisdri"),
        "follows its text, %": _following(results),
        "other wording, dB": _reworded(results),
        ABSENT_COLUMN: _items(results, ABSENT, ABSENT_LEVEL),
    }


def table(found: Mapping[str, dict[str, Scores]]) -> str:
    """A line for each recipe, and under it the paired change against the whole recipe."""
    heads = list(found[WHOLE])
    lines = ["| recipe | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for recipe, columns in found.items():
        means, changes = [], []
        for name, scores in columns.items():
            statistic = np.median if name == ABSENT_COLUMN else np.mean
            whole = found[WHOLE][name]
            pairs = [value - whole[key] for key, value in scores.items() if key in whole]
            means.append(
                interval_text(bootstrap([*scores.values()], statistic=statistic), "{:.1f}")
            )
            changes.append(interval_text(bootstrap(pairs, statistic=statistic), "{:+.1f}"))
        lines.append(f"| `{recipe}`, {PARTS[recipe]} | " + " | ".join(means) + " |")
        if recipe != WHOLE:
            lines.append("| change | " + " | ".join(changes) + " |")
    return "\n".join(lines)


def _words(value: Any) -> list[str]:
    """The value of a flag, as words of a command; `True` is a flag without one."""
    if isinstance(value, list):
        return [word for one in value for word in _words(one)]
    return [] if value is True else [str(value)]


def cache_of(options: argparse.Namespace, recipe: str) -> pathlib.Path:
    """The cache that a recipe is trained from, made where an earlier call has not."""
    if recipe not in MIXED:
        return options.cache
    folder = options.out / "caches" / recipe
    shared = read_object(options.cache / "cache.json")
    usual = config.to_dict(SourceConfig(), free=False)
    flags = [
        word
        for name, value in shared["recipe"]["source"].items()
        if value != usual[name]
        for word in (f"--data.source.{name.replace('_', '-')}", *_words(value))
    ]
    items = shared["shards"] * shared["per_shard"]
    prepare(f"tiny@{recipe}", folder, items, shared["recipe"]["seed"], flags)
    return folder


def measure(options: argparse.Namespace, flags: Sequence[str], recipe: str) -> Results:
    """Trains and evaluates one recipe, where an earlier call has not; returns its results."""
    workdir, out = options.out / "runs" / recipe, options.out / "eval" / recipe
    shared = ["--seed", str(options.seed), "--data.cache", str(cache_of(options, recipe))]
    train(f"tiny@{recipe}", workdir, options.steps, [*shared, *flags])
    evaluate(workdir, options.bench, out, PROMPTS, limit=options.limit)
    return read_object(out / "results.json")


def read_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of the tool, and flags of the config. Raises `UserError` for wrong ones."""
    parser = config.ArgumentParser(__doc__, command="switch_off")
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="of `tiny@words`")
    parser.add_argument("--bench", required=True, help="held-out mixtures: embedded, or a folder")
    parser.add_argument("--out", type=config.local_folder, required=True)
    parser.add_argument("--steps", type=at_least(1), default=1500, help="of each training")
    parser.add_argument("--limit", type=at_least(1), help="so many held-out mixtures")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=[*PROMPTED][1:],
        choices=[*PARTS][1:],
        metavar="NAME",
        help="of those that differ (default: in prompts)",
    )
    options, flags = parser.parse_known_args(argv)
    if not (options.cache / "cache.json").is_file():
        raise UserError(f"--cache {options.cache} is no latent cache: make it by sam-audio prepare")
    return options, flags


@command
def main(argv: list[str]) -> None:
    """Runs, or continues, the trainings, and writes the table of those that were asked for."""
    options, flags = read_options(argv)
    shared = {name: getattr(options, name) for name in ("cache", "bench", "steps", "limit", "seed")}
    claim(options.out, "switch_off.json", shared | {"flags": flags})
    mixtures = load_bench(options.bench).mixtures
    known, new = ({one.id for one in mixtures if one.seen is seen} for seen in (True, False))
    found = {
        name: columns_of(measure(options, flags, name), known, new)
        for name in (WHOLE, *options.recipes)
    }
    text = table(found)
    with whole_file(options.out / "table.md") as part:
        part.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
