"""What a study that has measured losses must keep, though a training may change it between starts.

One law is fitted to all losses: they must be of the same mixtures and of the same latents. What
has been trained must stay the run that the study now plans under its name.
"""

import sys
from typing import Any

from sam_audio_jax.data.shards import Cache
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object, write_json
from sam_audio_jax.scaling.measured import StudyFolder, bench_contents
from sam_audio_jax.scaling.study import StudyConfig, runs

BENCH = "bench"  # in the file of what the caches hold


def changes(folder: StudyFolder, saved: StudyConfig, study: StudyConfig) -> list[str]:
    """What differs from the saved study and must not, one text each; none before a measurement."""
    if not folder.has_measurements():
        return []
    found = [
        f"base.{name}: saved {old!r}, now {new!r}"
        for name in ("eval_bench", "eval_limit")
        if (old := getattr(saved.base, name)) != (new := getattr(study.base, name))
    ]
    found += [] if found else _changed_bench(folder, study)
    return [*found, *_changed_caches(folder, saved, study), *_misplaced(folder, saved, study)]


def keep_contents(folder: StudyFolder, study: StudyConfig) -> None:
    """Notes what latent caches and held-out mixtures hold, so that others are known as such."""
    measured = folder.has_measurements() and folder.caches_file.is_file()
    kept = read_object(folder.caches_file) if measured else {"caches": _contents(study)}
    if not kept.get(BENCH):
        write_json(folder.caches_file, kept | {BENCH: bench_contents(study)})


def _changed_bench(folder: StudyFolder, study: StudyConfig) -> list[str]:
    """Whether the mixtures under the name of the bench are others than those that were measured."""
    kept = read_object(folder.caches_file) if folder.caches_file.is_file() else {}
    now, bench = bench_contents(study), study.base.eval_bench
    if now and kept.get(BENCH) and kept[BENCH] != now:
        return [f"base.eval_bench: {bench} has not the mixtures that were measured"]
    if now and not kept.get(BENCH):  # a study of an earlier version
        print(f"warning: the mixtures of {bench} are taken for those before", file=sys.stderr)
    return []


def _contents(study: StudyConfig) -> list[dict[str, Any]]:
    """The number of items and the recipe of each latent cache."""
    found = []
    for path in study.base.data.caches:
        cache = Cache(path)
        found.append({"items": len(cache), "recipe": cache.index["recipe"]})
    return found


def _changed_caches(folder: StudyFolder, saved: StudyConfig, study: StudyConfig) -> list[str]:
    old, new = saved.base.data.caches, study.base.data.caches
    if len(old) != len(new):
        return [f"base.data.cache: saved {old}, now {new}"]
    now = _contents(study)
    if folder.caches_file.is_file():
        kept = read_object(folder.caches_file).get("caches")
        if not isinstance(kept, list) or len(kept) != len(old):
            raise UserError(f"{folder.caches_file} is damaged: it must describe {len(old)} caches")
    else:  # a study of an earlier version
        try:
            kept = _contents(saved)
        except UserError as error:
            print(f"warning: the cache is taken for the one before: {error}", file=sys.stderr)
            return []
    return [
        f"base.data.cache: saved {was} with {a['items']} items, now {path} with {b['items']}"
        + ("" if _holds(b["recipe"], a["recipe"]) else " of another recipe")
        for was, path, a, b in zip(old, new, kept, now, strict=True)
        if a["items"] != b["items"] or not _holds(b["recipe"], a["recipe"])
    ]


def _holds(whole: Any, part: Any) -> bool:
    """Whether a recipe has the values of another, which may lack fields that are newer than it."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and _holds(whole[name], part[name]) for name in part)
    return whole == part


def _misplaced(folder: StudyFolder, saved: StudyConfig, study: StudyConfig) -> list[str]:
    """New steps or budgets that would change, or never be measured in, what is trained."""
    if study.design in ("grid", "isoflop"):
        name = "steps" if study.design == "grid" else "budgets"
        old, new = getattr(saved, name), getattr(study, name)
        if any(value in new and new.index(value) != old.index(value) for value in old):
            return [
                f"{name}: saved {old}, now {new}, and the seed of a run is of its place in them: "
                "only the end may change"
            ]
        return []
    added = set(study.steps) - set(saved.steps)
    for run in runs(study):
        measured = folder.measured(run)
        reached = max(measured.union(folder.workdir(run).steps()), default=0)
        if missed := sorted(step for step in added - measured if step < reached):
            return [f"steps: {missed[0]} is new, and run {run.name} is past it, at {reached}"]
    return []
