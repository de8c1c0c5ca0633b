"""The evaluation: all that a suite lists is separated and scored, by any number of processes.

Fixed mixtures have known stems: SI-SDR improvement and log-mel distance of target and residual, and
whether the prompt is followed, raw and refined, all at the codec's rate, the band that the model
can generate. The released benchmark has none: networks score its targets (docs/benchmark.md).
"""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from sam_audio_jax import distributed
from sam_audio_jax.audio import measure_level
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import baselines, report, scorer_columns, scoring, statistics
from sam_audio_jax.eval.prompting import (
    EXAMPLES,
    PROMPTS,
    VIDEO,
    PromptedMixture,
    SeparatedMixture,
    SolverChoice,
    separate_batch,
)
from sam_audio_jax.eval.recorded import Rendered
from sam_audio_jax.eval.results import ranked, results_of, scalars
from sam_audio_jax.eval.score_store import Files, ScoreStore
from sam_audio_jax.eval.suite import Failure, Separation, Suite, batches, fixed_suite
from sam_audio_jax.files import whole_folder
from sam_audio_jax.infer.other_networks import identity, prompt_network
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.fingerprint import fingerprint
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.scorers.scorer import WANTED, Scorer

SEPARATIONS, BASELINES = "separations", "baselines"  # kinds of parts of the work
SUITE_SETTINGS = ("limit", "video_text")  # of a suite's identity, that the results show
# Of what is measured so far; format 1 had no levels, 2 no descriptors, 3 no files, 4 nothing of
# silent stems and no levels of parts.
SCORES_FORMAT = 5
_Work = dict[str, Callable[[], scoring.Scores]]  # by the name of each part


def evaluate_model(
    model: SAMAudio,
    bench: str | pathlib.Path | Suite,
    out_dir: str | pathlib.Path,
    *,
    prompts: Sequence[str] = PROMPTS,
    limit: int | None = None,
    solver: SolverChoice | None = None,
    measures: scoring.Measures | None = None,
    batch: int = 8,
    listen: int = 3,
    with_baselines: bool = True,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    rank: ProcessRank | None = None,
    loaded: Mapping[str, Any] | None = None,
) -> dict[str, float] | None:
    """Scores a model on a suite and writes `results.json` and `report.html`.

    `bench` is "embedded", a folder of fixed mixtures, of which `prompts` and `limit` choose, or any
    `Suite`; `listen` items of each setting can be played in the report and are saved in `audio/`:
    the median, the worst, the best and then others. `workdir` adds the training curve. `out_dir`
    appears whole or not at all and replaces an older one; until then `OUT_DIR.partial` has what is
    measured, from which a later call goes on. `loaded` says how the model was read, for the
    settings in `results.json`: its `checkpoint` by name, and what changes its numbers, as the
    dtype of its matrices.

    By `rank` process p of N, none of which waits for the others, measures its share; the last one
    to end writes the results, the others return None, and what another evaluation has left is
    refused. Without a rank that is replaced, and the processes of `jax.distributed`, if there are
    several, share the work and all return the scores.

    Returns flat scalars such as `sisdri/wiener/sfx/text`, `logmel/none/all/span`,
    `following/wiener/all/text`, `judge_overall/none/sfx-span/text+span` and
    `absent_level_median/wiener/all/absent`. Raises `UserError` for a bad bench or an unknown kind
    of prompt.
    """
    if isinstance(bench, Suite):
        suite = bench
    else:
        suite = fixed_suite(bench, model.sample_rate, prompts, limit)
    solver, measures = solver or SolverChoice(), measures or scoring.Measures()
    _check_scorers(suite, measures)
    if solver.predict_spans:
        model.pipeline.span_finder.require()
    if set(suite.kinds) & set(EXAMPLES):
        model.pipeline.like_vectors.require()
    run = _Run(model, suite, solver, measures, batch, listen, loaded or {})
    measured = run.identity() | {"baselines": with_baselines}
    together = rank is None and jax.process_count() > 1
    files = run.files()
    if together:
        distributed.run_on_first(lambda: ScoreStore(out_dir, measured, replace=True, files=files))
    # Behind the first process the others compare no files: it may be measuring already.
    store = ScoreStore(out_dir, measured, replace=rank is None, files=None if together else files)
    work = run.separations()
    if with_baselines:
        work |= run.baselines()
    own = rank or ProcessRank(jax.process_index(), jax.process_count())
    _measure(store, work, files, own, progress)
    if together:
        distributed.all_processes(True)  # waits for the others
    if not all(map(store.has, work)):
        return None
    with contextlib.nullcontext(True) if together else store.claimed() as mine:
        if not mine:
            return None
        try:
            results, cells, examples = run.results(store, work)
        except UserError:  # nothing was separated: a later call tries all of it again
            if not together:
                store.remove()
            raise
        if not together or jax.process_index() == 0:
            if silent := report.silence(results):
                print(f"warning: {silent}", file=sys.stderr)
            with whole_folder(out_dir, overwrite=True) as folder:
                report.write(folder, results, cells, examples, workdir)
    if together:
        distributed.run_on_first(store.remove)
    return scalars(cells, run.measures.columns)


def settings_of(model: SAMAudio, suite: Suite) -> dict[str, Any]:
    """The `settings` in the results of an `evaluate_model` of this model with the defaults."""
    run = _Run(model, suite, SolverChoice(), scoring.Measures(), batch=0, listen=0, loaded={})
    return run.settings()


def _measure(
    store: ScoreStore,
    work: _Work,
    files: Mapping[str, Files],
    rank: ProcessRank,
    progress: bool,
) -> None:
    """Does this process's share of the work, but for what is measured already.

    A part with items that failed in an earlier call is measured again: their files may be mended,
    which makes no other evaluation of it, unlike a change of files that were measured.
    """
    own = list(work)[rank.index :: rank.count]
    again = {part for part in own if store.has(part) and store.get(part)[0]["failed"]}
    missing = [part for part in own if part in again or not store.has(part)]
    done = len(own) - len(missing)
    bar = {"total": len(own), "initial": done, "desc": "evaluating", "unit": "batch"}
    for part in progress_bar(missing, **bar, disable=not progress):
        if part in again or not store.has(part):
            scores = work[part]()
            failed = {scoring.wave_name(one.setting, one.id) for one in scores.failed}
            read = {name: one for name, one in files.get(part, {}).items() if name not in failed}
            store.put(part, scores.as_json(), scores.waves, read)


@dataclasses.dataclass(frozen=True)
class _Run:
    """One model on one suite: the parts of the work, and what they add up to."""

    model: SAMAudio
    suite: Suite
    solver: SolverChoice
    measures: scoring.Measures
    batch: int
    listen: int
    loaded: Mapping[str, Any]  # how the model was read

    def rankers(self) -> dict[str, Scorer]:
        """What ranks candidates, by kind of prompt; raises `UserError` where nothing can."""
        chosen = {kind: self.solver.ranker(self.model, kind) for kind in self.suite.kinds}
        return {kind: ranker for kind, ranker in chosen.items() if ranker is not None}

    def identity(self) -> dict[str, Any]:
        """JSON of all that the scores depend on."""
        rankers = {kind: identity(one) for kind, one in self.rankers().items()}
        return {
            **self.suite.identity,
            **self.separation_settings(),
            **self.measures.as_dict(),
            # The same checkpoint has several names; its weights distinguish it.
            "loaded": {name: one for name, one in self.loaded.items() if name != "checkpoint"},
            "rankers": rankers,
            "missing": [dataclasses.asdict(one) for one in self.suite.missing],
            "batch": self.batch,
            "waves": self.listen > 0,
            "scores": SCORES_FORMAT,
        }

    def separation_settings(self) -> dict[str, Any]:
        """How everything is separated: what was chosen, else what the model's own config says."""
        pipeline = self.model.pipeline
        return {
            **dataclasses.asdict(self.solver),
            **dataclasses.asdict(self.solver.sampler(self.model.sampler)),
            "refine": dataclasses.asdict(pipeline.refinement),
            "level_db": pipeline.level_db,
            "sample_rate": self.model.sample_rate,
            "weights": fingerprint(pipeline.networks),
            **self.prompt_networks(),
        }

    def prompt_networks(self) -> dict[str, Any]:
        """The weights of networks beside the model's that the prompts of the suite are read by."""
        kinds = self.suite.kinds
        needed = {
            "audio_tower": bool(set(kinds) & set(EXAMPLES)),
            "vision_tower": any(VIDEO in kind for kind in kinds),
            "span_predictor": any(self.solver.predicts(kind) for kind in kinds),
        }
        names = [name for name, is_needed in needed.items() if is_needed]
        found = {name: prompt_network(self.model.pipeline, name) for name in names}
        return {"prompt_networks": found} if found else {}

    def settings(self) -> dict[str, Any]:
        """What `results.json` has under that name, as JSON."""
        identity = self.suite.identity
        return {
            **self.loaded,
            "prompts": list(self.suite.kinds),
            **{name: identity[name] for name in SUITE_SETTINGS if name in identity},
            **self.separation_settings(),
            "rankers": {kind: scorer_columns.in_words(one) for kind, one in self.rankers().items()},
            "scorers": self.measures.described(),
            "distances": list(self.measures.distances),
            "resamples": statistics.RESAMPLES,
            "level": statistics.LEVEL,
        }

    def separations(self) -> _Work:
        """The work of separating and scoring everything, in batches of one length, few shapes."""
        groups = self.groups()
        rows: dict[int, int] = collections.defaultdict(int)  # of the largest batch of each length
        for group in groups.values():
            rows[group[0].length] = max(rows[group[0].length], len(group))
        return {
            part: functools.partial(self._separate, group, rows[group[0].length])
            for part, group in groups.items()
        }

    def groups(self) -> dict[str, list[Separation]]:
        """The batches, by the names of their parts of the work."""
        by_kind = self.solver.predict_spans or self.suite.may_fail
        groups = batches(self.suite.separations, self.batch, by_kind=by_kind)
        return {f"{SEPARATIONS}-{number:05d}": group for number, group in enumerate(groups)}

    def files(self) -> dict[str, Files]:
        """By the name of each part what its separations read."""
        return {
            part: {scoring.wave_name(one.setting, one.id): one.files for one in group if one.files}
            for part, group in self.groups().items()
        }

    def _separate(self, group: Sequence[Separation], rows: int) -> scoring.Scores:
        suite = self.suite
        kept = suite.kept if self.listen else ()
        refinement = self.model.pipeline.refinement
        scores = scoring.Scores(kept, suite.refines, self.measures, refinement)
        loaded: list[PromptedMixture] = []
        for one in group:
            try:
                loaded.append(one.load())
            except UserError as error:
                if not suite.may_fail:
                    raise
                scores.failed.append(Failure(id=one.id, setting=one.setting, reason=str(error)))
        if loaded:
            stems = self._stems(loaded, rows, scores.failed)
            scores.add(stems, may_fail=suite.may_fail)
        return scores

    def _stems(
        self, batch: Sequence[PromptedMixture], rows: int, failed: list[Failure]
    ) -> list[SeparatedMixture]:
        """The stems of a batch; of one with an item that cannot be separated, those of the rest."""
        try:
            return list(separate_batch(self.model, batch, rows, self.solver))
        except UserError as error:
            if not self.suite.may_fail:
                raise
            if len(batch) == 1:
                item = batch[0].recorded.item
                failed.append(Failure(id=item.id, setting=item.setting, reason=str(error)))
                return []
        return [stems for one in batch for stems in self._stems([one], 1, failed)]

    def baselines(self) -> _Work:
        """The work of scoring all baselines, a batch of mixtures at a time."""
        size, mixtures = self.batch, self.suite.rendered
        codec = Compiled(self.model.codec)

        def score(some: Sequence[Rendered]) -> scoring.Scores:
            scores = scoring.Scores()
            level_db = self.model.pipeline.level_db
            for rendered in some:
                truth = (rendered.target, rendered.residual)
                level = measure_level(rendered.mixture, rendered.sample_rate, level_db)
                level = dataclasses.replace(level, offset=0.0)
                coded = baselines.through_codec(codec, truth, level)
                scores.scored += [(True, row) for row in scoring.baseline_rows(rendered, coded)]
            return scores

        return {
            f"{BASELINES}-{start // size:05d}": functools.partial(
                score, mixtures[start : start + size]
            )
            for start in range(0, len(mixtures), size)
        }

    def results(
        self, store: ScoreStore, work: _Work
    ) -> tuple[dict[str, Any], list[statistics.Cell], list[report.PlayedItem]]:
        """What `results.json` has, the cells of its tables, and what can be played."""
        total = {prefix: scoring.Scores() for prefix in (SEPARATIONS, BASELINES)}
        part_of: dict[str, str] = {}
        for part in work:
            stored, names = store.get(part)
            total[part.split("-")[0]].absorb(stored)
            part_of |= dict.fromkeys(names, part)
        order = {name: index for index, name in enumerate(baselines.NAMES)}
        known = sorted(total[BASELINES].rows, key=lambda row: order[row["row"]])
        scores = total[SEPARATIONS]
        if (lost := (*scores.failed, *self.suite.missing)) and not scores.scored:
            first = lost[0]
            raise UserError(
                f"nothing of {self.suite.name} was separated: {first.id}: {first.reason}"
            )
        summed_up, cells = results_of(
            self.suite, scores, known + scores.rows, self.measures.columns, self.solver.seed
        )
        results = {"bench": self.suite.name, "settings": self.settings(), **summed_up}
        return results, cells, self._examples(store, scores.rows, part_of)

    def _examples(
        self, store: ScoreStore, rows: Sequence[scoring.ScoreRow], part_of: Mapping[str, str]
    ) -> list[report.PlayedItem]:
        """Of each setting the item with the middle score, the worst, the best, then others."""
        refine = self.suite.refines[-1]
        by_name = {
            scoring.wave_name(one.setting, one.id): one
            for one in self.suite.separations
            if _is_kept(self.suite, one)
        }
        examples = []
        for setting in self.suite.listed:
            of_setting = [
                row
                for row in rows
                if row["setting"] == setting
                and row["row"].split("/")[1] == refine
                and row["row"].split("/")[2] in self.suite.kept
            ]
            for one in ranked(of_setting)[: self.listen]:
                name = scoring.wave_name(setting, one.row["id"])
                raw = store.waves(part_of[name], name)
                prompted = by_name[name].load()
                recorded = prompted.recorded
                refined = None
                if refine == "wiener":
                    refined = baselines.masked(
                        recorded.mixture,
                        raw,
                        recorded.sample_rate,
                        self.model.pipeline.refinement,
                        prompted.positive_spans() or (),
                    )
                score = one.row.get(one.column)
                examples.append(
                    report.PlayedItem(prompted, one.column, score, one.place, raw, refined)
                )
        return examples


def _check_scorers(suite: Suite, measures: scoring.Measures) -> None:
    """Raises `UserError` for a scorer of videos where no item has one."""
    for name, scorer in measures.scorers.items():
        if scorer.needs == "video" and not any(VIDEO in kind for kind in suite.kinds):
            raise UserError(
                f"scorer {name} needs {WANTED['video']}, which nothing that is run of {suite.name} "
                "has"
            )


def _is_kept(suite: Suite, separation: Separation) -> bool:
    return separation.right and separation.kind in suite.kept
