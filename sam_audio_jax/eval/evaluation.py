"""The evaluation: every fixed mixture, every kind of prompt, with and without refinement.

It measures SI-SDR improvement and log-mel distance of target and residual, and whether the prompt
is followed, all at the codec's rate, the band that the model can generate.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import tqdm

from sam_audio_jax import distributed
from sam_audio_jax.audio import measure_level
from sam_audio_jax.distributed import ProcessRank
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import baselines, report, scoring, statistics
from sam_audio_jax.eval.mixtures import FixedMixture, Rendered, load_bench, render
from sam_audio_jax.eval.prompting import (
    PROMPTS,
    PromptedMixture,
    SolverChoice,
    batches,
    prompted_mixtures,
    separate_batch,
)
from sam_audio_jax.eval.score_store import ScoreStore, fingerprint
from sam_audio_jax.files import whole_folder
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.nn.call import Compiled

SEPARATIONS, BASELINES = "separations", "baselines"  # kinds of parts of the work
SCORES_FORMAT = 2  # of what is measured so far; format 1 had no levels
_Work = dict[str, Callable[[], scoring.Scores]]  # by the name of each part
ABSENT_MEDIAN = scoring.ABSENT_LEVEL + statistics.MEDIAN
LOGGED = ("sisdri", "sisdri_residual", "logmel", "logmel_residual", *scoring.FOLLOWING)
LOGGED += (scoring.REWORDED, ABSENT_MEDIAN)


def evaluate_model(
    model: SAMAudio,
    bench: str | pathlib.Path,
    out_dir: str | pathlib.Path,
    *,
    prompts: Sequence[str] = PROMPTS,
    method: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    batch: int = 8,
    listen: int = 2,
    with_baselines: bool = True,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    rank: ProcessRank | None = None,
) -> dict[str, float] | None:
    """Scores a model on a list of fixed mixtures and writes `results.json` and `report.html`.

    `bench` is "embedded" or a folder; `limit` takes that many mixtures, spread over the settings;
    `listen` mixtures of each setting can be played in the report and are saved in `audio/`;
    `workdir` adds the training curve. `out_dir` appears whole or not at all and replaces an older
    one; until then `OUT_DIR.partial` has what is measured, from which a later call goes on.

    By `rank` process p of N, none of which waits for the others, measures its share; the last one
    to end writes the results, the others return None, and what another evaluation has left is
    refused. Without a rank that is replaced, and the processes of `jax.distributed`, if there are
    several, share the work and all return the scores.

    Returns flat scalars such as `sisdri/wiener/sfx/text`, `logmel/none/all/span`,
    `following/wiener/all/text` and `absent_level_median/wiener/all/absent`. Raises `UserError` for
    a bad bench or an unknown kind of prompt.
    """
    listing = load_bench(bench)
    mixtures = [
        render(listing, item).resampled(model.sample_rate)
        for item in choose(listing.mixtures, limit)
    ]
    prompted, alike = prompted_mixtures(mixtures, prompts)
    solver = SolverChoice(method, steps, seed)
    settings = {"prompts": list(prompts), **dataclasses.asdict(solver), "limit": limit}
    measured = settings | {"bench": listing.name, "items": [one.item.id for one in mixtures]}
    measured |= {"batch": batch, "baselines": with_baselines, "sample_rate": model.sample_rate}
    measured |= {"refine": dataclasses.asdict(model.pipeline.refinement)}
    measured |= {"weights": fingerprint(model.pipeline.networks), "scores": SCORES_FORMAT}
    together = rank is None and jax.process_count() > 1
    if together:
        distributed.run_on_first(lambda: ScoreStore(out_dir, measured, replace=True))
    store = ScoreStore(out_dir, measured, replace=rank is None)
    work = _separations(model, prompted, batch, solver, prompts[0])
    if with_baselines:
        work |= _baselines(model, mixtures, batch)
    own = rank or ProcessRank(jax.process_index(), jax.process_count())
    _measure(store, work, own, progress)
    if together:
        distributed.all_processes(True)  # waits for the others
    if not all(map(store.has, work)):
        return None
    with contextlib.nullcontext(True) if together else store.claimed() as mine:
        if not mine:
            return None
        scores, rows = _collected(store, work, prompts[0])
        summed_up, cells = _summed_up(scores, rows, mixtures, alike, seed)
        how = settings | _how_measured(model.sample_rate)
        results = {"bench": listing.name, "settings": how, **summed_up}
        if not together or jax.process_index() == 0:
            examples = _examples(model, prompted, scores, listen)
            with whole_folder(out_dir, overwrite=True) as folder:
                report.write(folder, results, cells, examples, workdir)
    if together:
        distributed.run_on_first(store.remove)
    return scalars(cells)


def _measure(store: ScoreStore, work: _Work, rank: ProcessRank, progress: bool) -> None:
    """Does this process's share of the work, but for what is measured already."""
    own = list(work)[rank.index :: rank.count]
    for part in tqdm.tqdm(own, desc="evaluating", unit="batch", disable=not progress):
        if not store.has(part):
            scores = work[part]()
            stored = {"scored": scores.scored, "not_finite": scores.not_finite}
            store.put(part, stored, scores.waves)


def _collected(
    store: ScoreStore, work: _Work, kept_kind: str
) -> tuple[scoring.Scores, list[scoring.ScoreRow]]:
    """The scores of the model, and the rows of all baselines, one after another, and of it."""
    total = {prefix: scoring.Scores(kept_kind) for prefix in (SEPARATIONS, BASELINES)}
    for part in work:
        stored, waves = store.get(part)
        scores = scoring.Scores(kept_kind)
        scores.scored = [(right, row) for right, row in stored["scored"]]
        scores.not_finite, scores.waves = stored["not_finite"], waves
        total[part.split("-")[0]].absorb(scores)
    order = {name: index for index, name in enumerate(baselines.NAMES)}
    known = sorted(total[BASELINES].rows, key=lambda row: order[row["row"]])
    return total[SEPARATIONS], known + total[SEPARATIONS].rows


def _separations(
    model: SAMAudio,
    prompted: Sequence[PromptedMixture],
    size: int,
    solver: SolverChoice,
    kept_kind: str,
) -> _Work:
    """The work of separating and scoring everything, in batches of one length and few shapes."""
    groups = batches(prompted, size)
    rows: dict[int, int] = collections.defaultdict(int)  # of the largest batch of each length
    for group in groups:
        rows[group[0].length] = max(rows[group[0].length], len(group))

    def separate(group: Sequence[PromptedMixture]) -> scoring.Scores:
        scores = scoring.Scores(kept_kind, model.pipeline.refinement)
        for one, target, residual in separate_batch(model, group, rows[group[0].length], solver):
            scores.add(one, target, residual)
        return scores

    return {
        f"{SEPARATIONS}-{number:05d}": functools.partial(separate, group)
        for number, group in enumerate(groups)
    }


def _baselines(model: SAMAudio, mixtures: Sequence[Rendered], size: int) -> _Work:
    """The work of scoring all baselines, `size` mixtures at a time."""
    codec = Compiled(model.codec)

    def score(some: Sequence[Rendered]) -> scoring.Scores:
        scores = scoring.Scores("")
        for rendered in some:
            truth = (rendered.target, rendered.residual)
            level = measure_level(rendered.mixture, rendered.sample_rate, model.pipeline.level_db)
            level = dataclasses.replace(level, offset=0.0)
            coded = baselines.through_codec(codec, truth, level)
            scores.scored += [(True, row) for row in scoring.baseline_rows(rendered, coded)]
        return scores

    return {
        f"{BASELINES}-{start // size:05d}": functools.partial(score, mixtures[start : start + size])
        for start in range(0, len(mixtures), size)
    }


def choose(mixtures: Sequence[FixedMixture], limit: int | None) -> list[FixedMixture]:
    """The first `limit` mixtures, alternating between the settings; all without a limit.

    Raises `UserError` for a limit below 1.
    """
    if limit is None or limit >= len(mixtures):
        return list(mixtures)
    if limit < 1:
        raise UserError(f"limit {limit} must be at least 1")
    seen: collections.Counter[str] = collections.Counter()
    order = []
    for index, item in enumerate(mixtures):
        order.append((seen[item.setting], index))
        seen[item.setting] += 1
    chosen = sorted(index for _, index in sorted(order)[:limit])
    return [mixtures[index] for index in chosen]


def _summed_up(
    scores: scoring.Scores,
    rows: list[scoring.ScoreRow],
    mixtures: Sequence[Rendered],
    alike: Sequence[str],
    seed: int,
) -> tuple[dict[str, Any], list[statistics.Cell]]:
    """What `results.json` has of the scores, and the cells of its tables with their intervals."""
    following, reworded = scores.following(), scores.reworded()
    parts = parts_of([one.item for one in mixtures])
    tables = (
        (rows, (*scoring.COLUMNS, scoring.ABSENT_LEVEL, ABSENT_MEDIAN)),
        (following, (*scoring.FOLLOWING, *scoring.LEVELS)),
        (reworded, (scoring.REWORDED,)),
    )
    cells = []
    for lines, columns in tables:
        cells += statistics.aggregate(lines, columns, seed=seed, parts=parts)
    results = {
        "mixtures": dict(collections.Counter(one.item.setting for one in mixtures)),
        "parts": dict(collections.Counter(parts.values())),
        "not_told_apart_by_spans": alike,
        "not_finite": scores.not_finite,
        "table": [_table_line(cell) for cell in cells],
        "items": rows,
        "following": following,
        "reworded": reworded,
    }
    return results, cells


def parts_of(mixtures: Sequence[FixedMixture]) -> dict[str, str]:
    """Id -> part, of mixtures in whose setting there are known and new captions."""
    several = collections.defaultdict(set)
    for item in mixtures:
        several[item.setting].add(item.part)
    return {item.id: item.part for item in mixtures if item.part and len(several[item.setting]) > 1}


def scalars(cells: Iterable[statistics.Cell]) -> dict[str, float]:
    """`COLUMN/REFINE/SETTING/PROMPT` of the model, `COLUMN/BASELINE/SETTING` of the baselines."""
    flat = {}
    for cell in cells:
        if cell.column not in LOGGED:
            continue
        parts = cell.row.split("/")
        if parts[0] == "model":
            key = f"{cell.column}/{parts[1]}/{cell.setting}/{parts[2]}"
        else:
            key = f"{cell.column}/{cell.row}/{cell.setting}"
        flat[key] = cell.interval.mean
    return flat


def _how_measured(sample_rate: int) -> dict[str, Any]:
    """The part of the settings that is no option."""
    return {
        "sample_rate": sample_rate,
        "resamples": statistics.RESAMPLES,
        "level": statistics.LEVEL,
    }


def _table_line(cell: statistics.Cell) -> dict[str, Any]:
    """A cell of the report's tables as JSON."""
    name = {"row": cell.row, "setting": cell.setting, "column": cell.column}
    return name | cell.interval.as_dict()


def _examples(
    model: SAMAudio, prompted: Sequence[PromptedMixture], scores: scoring.Scores, count: int
) -> list[report.PlayedItem]:
    """Of each setting the mixture with the middle score, the worst, the best, up to `count`."""
    sisdri = {
        row["id"]: row["sisdri"]
        for row in scores.rows
        if row["row"] == f"model/wiener/{scores.kept_kind}"
        and math.isfinite(row.get("sisdri", math.nan))
    }
    examples = []
    kept = [p for p in prompted if p.right and p.kind == scores.kept_kind]
    kept = [p for p in kept if p.rendered.item.id in sisdri]
    for setting in dict.fromkeys(one.rendered.item.setting for one in prompted):
        ranked = [one for one in kept if one.rendered.item.setting == setting]
        ranked.sort(key=lambda one: sisdri[one.rendered.item.id])
        last = len(ranked) - 1
        order = dict.fromkeys([len(ranked) // 2, 0, last, *range(len(ranked))]) if ranked else {}
        for index in list(order)[:count]:
            rendered, spans = ranked[index].rendered, ranked[index].positive_spans() or ()
            name = rendered.item.id
            raw = scores.waves[name]
            refined = baselines.masked(
                rendered.mixture, raw, rendered.sample_rate, model.pipeline.refinement, spans
            )
            examples.append(
                report.PlayedItem(rendered, scores.kept_kind, sisdri[name], raw, refined)
            )
    return examples
