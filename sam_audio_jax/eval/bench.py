"""The evaluation: every fixed mixture, every kind of prompt, with and without refinement.

What is measured: SI-SDR improvement and log-mel distance of target and residual, and whether the
prompt is followed, all at the codec's rate, the band that the model can make. Issue: "Evaluation".
"""

import collections
import dataclasses
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import baselines, metrics, report, statistics
from sam_audio_jax.eval.mixtures import Bench, Mixture, load_bench, render
from sam_audio_jax.eval.solve import (
    PROMPTS,
    Options,
    Question,
    Sound,
    Wave,
    batches,
    questions,
    solve,
)
from sam_audio_jax.infer.separate import SAMAudio

REFINES = ("none", "wiener")
COLUMNS = ("sisdri", "sisdri_residual", "sisdr", "sisdr_residual", "logmel", "logmel_residual")
LOGGED = ("sisdri", "sisdri_residual", "logmel", "logmel_residual", "following", "following_logmel")
FOLLOWING = ("following", "following_logmel")
Row = dict[str, Any]


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
) -> dict[str, float]:
    """Scores a model on a list of fixed mixtures and writes `results.json` and `report.html`.

    `bench` is "embedded" or a folder; `limit` takes that many items, spread over the settings;
    `listen` items of each setting can be heard in the report and lie in `audio/`; `workdir` adds
    the training curve. `out_dir` is made whole or not at all and replaces an older one.

    Returns flat scalars such as `sisdri/wiener/sfx/text`, `logmel/none/all/span` and
    `following/wiener/all/text`. UserError: a bad bench, an unknown prompt kind.
    """
    listing = load_bench(bench)
    items = choose(listing.mixtures, limit)
    rate = model.sample_rate
    sounds = [at_rate(listing, item, rate) for item in items]
    asked, alike = questions(sounds, prompts, rate)
    options = Options(method, steps, seed)
    answers = _Answers(rate, heard=prompts[0])
    groups = batches(asked, batch)
    bar = tqdm.tqdm(total=len(asked), desc="evaluating", unit="item", disable=not progress)
    with bar:
        for group in groups:
            alike_rows = max(len(g) for g in groups if _length(g) == _length(group))
            for question, target, residual in solve(model, group, rate, alike_rows, options):
                answers.add(question, target, residual)
                bar.update()
    rows = answers.rows
    if with_baselines:
        rows = _baseline_rows(model, sounds, rate, progress) + rows
    followed = answers.followed()
    cells = statistics.aggregate(rows, COLUMNS, seed=seed)
    cells += statistics.aggregate(followed, FOLLOWING, seed=seed)
    results = {
        "bench": listing.name,
        "settings": {
            "prompts": list(prompts),
            **dataclasses.asdict(options),
            "limit": limit,
            "sample_rate": rate,
            "resamples": statistics.RESAMPLES,
            "level": statistics.LEVEL,
        },
        "mixtures": dict(collections.Counter(item.setting for item in items)),
        "not_told_apart_by_spans": alike,
        "not_finite": answers.not_finite,
        "table": [
            {"row": c.row, "setting": c.setting, "column": c.column, **c.interval.as_dict()}
            for c in cells
        ],
        "items": rows,
        "following": followed,
    }
    scenes = _scenes(sounds, answers, listen)
    _write(
        pathlib.Path(out_dir),
        lambda folder: report.write(folder, results, cells, scenes, rate, workdir),
    )
    return scalars(cells)


def choose(mixtures: Sequence[Mixture], limit: int | None) -> list[Mixture]:
    """The first `limit` items, taken in turn from each setting; all without a limit."""
    if limit is None or limit >= len(mixtures):
        return list(mixtures)
    if limit < 1:
        raise UserError(f"limit {limit} must be at least 1")
    turns: collections.Counter[str] = collections.Counter()
    order = []
    for place, item in enumerate(mixtures):
        order.append((turns[item.setting], place))
        turns[item.setting] += 1
    chosen = sorted(place for _, place in sorted(order)[:limit])
    return [mixtures[place] for place in chosen]


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


def scores(sound: Sound, target: Wave, residual: Wave, rate: int) -> dict[str, float]:
    """The columns of one pair of stems; NaN where the stems are not finite."""
    if not (np.isfinite(target).all() and np.isfinite(residual).all()):
        return dict.fromkeys(COLUMNS, math.nan)
    made: dict[str, float] = {}
    for suffix, ours, true in (
        ("", target, sound.target),
        ("_residual", residual, sound.residual),
    ):
        before = _si_sdr(sound.mixture, true)
        made["sisdr" + suffix] = _si_sdr(ours, true)
        made["sisdri" + suffix] = made["sisdr" + suffix] - before
        made["logmel" + suffix] = metrics.log_mel_distance(ours, true, rate)
    return made


class _Answers:
    """Scores answers as they come; keeps only the waves that the report may play."""

    def __init__(self, rate: int, heard: str):
        self.rate = rate
        self.heard = heard  # kind of prompt whose waves are kept
        self.rows: list[Row] = []
        self.waves: dict[str, tuple[Wave, Wave]] = {}
        self.not_finite = 0
        self._matches: dict[tuple, Row] = {}  # right and wrong answers against the right source

    def add(self, question: Question, target: Wave, residual: Wave) -> None:
        sound, item = question.sound, question.sound.item
        finite = bool(np.isfinite(target).all() and np.isfinite(residual).all())
        self.not_finite += not finite
        for refine in REFINES:
            stems = (target, residual)
            if refine == "wiener" and finite:
                stems = baselines.masked(sound.mixture, stems, self.rate)
            made = scores(sound, *stems, self.rate)
            row = {
                "id": item.id,
                "setting": item.setting,
                "row": f"model/{refine}/{question.prompt}",
            }
            self._matches[item.id, row["row"], question.right] = row | made
            if question.right:
                self.rows.append(row | made)
        if question.right and question.prompt == self.heard:
            self.waves[item.id] = (target, residual)

    def followed(self) -> list[Row]:
        """One row per item, prompt kind and refinement of which both answers exist."""
        judged = []
        for (name, row, right), answer in self._matches.items():
            wrong = self._matches.get((name, row, False))
            if not right or wrong is None or math.isnan(answer["sisdr"] + wrong["sisdr"]):
                continue
            judged.append(
                {
                    "id": name,
                    "setting": answer["setting"],
                    "row": row,
                    "following": answer["sisdr"] > wrong["sisdr"],
                    "following_logmel": answer["logmel"] < wrong["logmel"],
                    "sisdr_right": answer["sisdr"],
                    "sisdr_wrong": wrong["sisdr"],
                    "logmel_right": answer["logmel"],
                    "logmel_wrong": wrong["logmel"],
                }
            )
        return judged


def _length(group: Sequence[Question]) -> int:
    return len(group[0].sound.mixture)


def _si_sdr(estimate: Wave, reference: Wave) -> float:
    return float(metrics.si_sdr(estimate.astype(np.float64), reference.astype(np.float64)))


def at_rate(bench: Bench, item: Mixture, rate: int) -> Sound:
    """The rendered item, resampled stem by stem."""
    rendered = render(bench, item)
    target, residual = (
        audio.resample(wave, rendered.sample_rate, rate)
        for wave in (rendered.target, rendered.residual)
    )
    return Sound(item, target + residual, target, residual)


def _baseline_rows(
    model: SAMAudio, sounds: Sequence[Sound], rate: int, progress: bool
) -> list[Row]:
    rows: list[Row] = []
    for sound in tqdm.tqdm(sounds, "baselines", unit="item", disable=not progress):
        truth = (sound.target, sound.residual)
        coded = baselines.through_codec(model.networks.codec, truth)
        for name, stems in baselines.baselines(sound.mixture, truth, coded, rate).items():
            row = {"id": sound.item.id, "setting": sound.item.setting, "row": name}
            rows.append(row | scores(sound, *stems, rate))
    order = {name: place for place, name in enumerate(baselines.NAMES)}
    return sorted(rows, key=lambda row: order[row["row"]])


def _scenes(sounds: Sequence[Sound], answers: _Answers, listen: int) -> list[report.Scene]:
    """Per setting the item with the middle score, then the worst, then the best, up to `listen`."""
    score = {
        row["id"]: row["sisdri"]
        for row in answers.rows
        if row["row"] == f"model/wiener/{answers.heard}" and math.isfinite(row["sisdri"])
    }
    scenes = []
    for setting in dict.fromkeys(sound.item.setting for sound in sounds):
        mine = [s for s in sounds if s.item.setting == setting and s.item.id in score]
        mine.sort(key=lambda sound: score[sound.item.id])
        picks = dict.fromkeys([len(mine) // 2, 0, len(mine) - 1, *range(len(mine))] if mine else [])
        for place in list(picks)[:listen]:
            sound = mine[place]
            raw = answers.waves[sound.item.id]
            refined = baselines.masked(sound.mixture, raw, answers.rate)
            scenes.append(report.Scene(sound, answers.heard, score[sound.item.id], raw, refined))
    return scenes


def _write(out: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Has an empty sibling filled and puts it in the place of `out`, on process 0."""
    if jax.process_index():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    old = part.with_name(part.name + ".old")
    try:
        part.chmod(0o755)
        fill(part)
        if out.exists():
            out.rename(old)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
