"""Scores of separated stems against the true ones, and whether a model follows its prompts."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import baselines, distances, scorer_columns
from sam_audio_jax.eval.bss_eval import bss_eval
from sam_audio_jax.eval.descriptors import describe
from sam_audio_jax.eval.prompting import ABSENT, WORDINGS, SeparatedMixture
from sam_audio_jax.eval.recorded import Rendered, Wave
from sam_audio_jax.eval.suite import REFINES, Failure
from sam_audio_jax.infer.other_networks import identity
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig
from sam_audio_jax.scorers.activity import overlap
from sam_audio_jax.scorers.scorer import Scorer

COLUMNS = ("sisdri", "sisdri_residual", "sisdr", "sisdr_residual", "logmel", "logmel_residual")
FOLLOWING = ("following", "following_logmel")
# Levels in dB of the mixture, of the stem that is prompted for and of the true target in it.
LEVELS = ("level_right", "level_wrong", "kept_right", "kept_wrong")
# Fields, by stem, of a row with known stems whose own stem is silent. SI-SDR calls that 0 dB, as
# torchmetrics does: better than the mixture of a sound that is below 0 dB in it.
SILENT = {"target": "silent", "residual": "silent_residual"}
# Energy below which the machine epsilon in SI-SDR decides, not the sound.
LEAST_ENERGY = 100 * float(np.finfo(np.float64).eps)
REWORDED, ABSENT_LEVEL = "reworded", "absent_level"
FLOOR_DB = -120.0  # of a level; the stem is silent
ScoreRow = dict[str, Any]


def score(rendered: Rendered, target: Wave, residual: Wave) -> dict[str, float | bool]:
    """The columns of one pair of stems, in dB; NaN where the stems are not finite.

    A stem that is digital silence, or as good as, is marked by its field of `SILENT`.
    """
    if not (np.isfinite(target).all() and np.isfinite(residual).all()):
        return {column: math.nan for column in COLUMNS}
    columns: dict[str, float | bool] = {}
    for field, stem in zip(SILENT.values(), (target, residual), strict=True):
        if float(np.square(stem.astype(np.float64)).sum()) < LEAST_ENERGY:
            columns[field] = True
    mixture = rendered.mixture.astype(np.float64)
    for suffix, stem, truth in (
        ("", target, rendered.target),
        ("_residual", residual, rendered.residual),
    ):
        exact, reference = stem.astype(np.float64), truth.astype(np.float64)
        columns["sisdr" + suffix] = float(audio.si_sdr(exact, reference))
        columns["sisdri" + suffix] = float(distances.si_sdr_improvement(exact, reference, mixture))
        columns["logmel" + suffix] = distances.log_mel_distance(stem, truth, rendered.sample_rate)
    return columns


def level_db(wave: Wave, mixture: Wave) -> float:
    """The level of a wave relative to the mixture, in dB; at least `FLOOR_DB`."""
    power, total = (float(np.square(one.astype(np.float64)).sum()) for one in (wave, mixture))
    return max(FLOOR_DB, 10 * math.log10(max(power, 1e-30) / max(total, 1e-30)))


def kept_db(stem: Wave, rendered: Rendered) -> float:
    """The level of the true target in a stem, relative to the mixture, in dB."""
    truth = rendered.target.astype(np.float64)
    share = float(stem.astype(np.float64) @ truth) / max(float(truth @ truth), 1e-30)
    return level_db(share * truth, rendered.mixture)


def _sdr(separated: SeparatedMixture, rendered: Rendered, target: Wave) -> dict[str, float]:
    """SDR in the sense of the Music Demixing Challenge, of one channel at the model's rate."""
    return {"sdr": float(distances.track_sdr(target[:, None], rendered.target[:, None]))}


def _bss(separated: SeparatedMixture, rendered: Rendered, target: Wave) -> dict[str, float]:
    """SDR, SIR and SAR of BSS Eval 3, with the residual as the second source."""
    estimates = np.stack([target, separated.residual])
    found = bss_eval(estimates, np.stack([rendered.target, rendered.residual]), permute=False)
    ratios = {"bss_sdr": found.sdr, "bss_sir": found.sir, "bss_sar": found.sar}
    return {name: float(values[0]) for name, values in ratios.items()}


def _stft(separated: SeparatedMixture, rendered: Rendered, target: Wave) -> dict[str, float]:
    """The multi-resolution STFT distance."""
    return {"stft": distances.stft_distance(target, rendered.target)}


# More measures of a target whose true stem is known; they take time, so that each is chosen.
DISTANCES: Mapping[str, Callable[[SeparatedMixture, Rendered, Wave], dict[str, float]]] = {
    "sdr": _sdr,
    "bss": _bss,
    "stft": _stft,
}
DISTANCE_COLUMNS = ("sdr", "bss_sdr", "bss_sir", "bss_sar", "stft")
SPAN_IOU = "span_iou"  # of predicted spans with the listed ones


@dataclasses.dataclass(frozen=True)
class Measures:
    """What is measured beside the distances that every known stem has."""

    scorers: Mapping[str, Scorer] = dataclasses.field(default_factory=dict)  # by short names
    distances: tuple[str, ...] = ()  # of DISTANCES
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)  # files, by scorer

    def described(self) -> dict[str, str]:
        """What each scorer is, for a reader of the report."""
        described = {}
        for name, scorer in self.scorers.items():
            named = " of ".join(filter(None, (type(scorer).__name__, self.sources.get(name))))
            described[name] = "; ".join(filter(None, (named, getattr(scorer, "about", ""))))
        return described

    def as_dict(self) -> dict[str, Any]:
        """JSON that distinguishes what is measured."""
        scorers = {name: identity(one) for name, one in self.scorers.items()}
        return {"scorers": scorers, "distances": list(self.distances)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that may be there besides those of known stems."""
        return (*DISTANCE_COLUMNS, SPAN_IOU, *scorer_columns.columns_of(self.scorers))


class Scores:
    """Scores stems as they are separated; keeps only the waves that the report may play."""

    def __init__(
        self,
        kept: Collection[str] = (),
        refines: Sequence[str] = REFINES,
        measures: Measures | None = None,
        refinement: RefineConfig = DEFAULT,
    ):
        """`kept`: the kinds of prompt whose waves are kept; `refinement` is the model's."""
        self.kept, self.refines, self.measures = kept, refines, measures or Measures()
        self.refinement = refinement
        self.waves: dict[str, tuple[Wave, Wave]] = {}  # by `wave_name`
        self.not_finite = 0
        self.scored: list[tuple[bool, ScoreRow]] = []  # whether by the right prompt, and the scores
        self.described: list[ScoreRow] = []  # what is known of the mixtures
        self.failed: list[Failure] = []

    @property
    def rows(self) -> list[ScoreRow]:
        """The scores of the right prompts."""
        return [row for right, row in self.scored if right]

    def as_json(self) -> dict[str, Any]:
        """All but the waves, as plain JSON."""
        return {
            "scored": self.scored,
            "not_finite": self.not_finite,
            "described": self.described,
            "failed": [dataclasses.asdict(one) for one in self.failed],
        }

    def absorb(self, stored: Mapping[str, Any]) -> None:
        """Adds what `as_json` returned of another one behind its own."""
        self.scored += [(right, row) for right, row in stored["scored"]]
        self.not_finite += stored["not_finite"]
        self.described += stored["described"]
        self.failed += [Failure(**one) for one in stored["failed"]]

    def add(self, batch: Sequence[SeparatedMixture], *, may_fail: bool = False) -> None:
        """Scores the stems of a batch as generated and, if so wanted, as refined on the mixture.

        With `may_fail` an item that a scorer refuses, as one that is too short for a network, is
        listed as failed; without it that raises `UserError`.
        """
        scores = Scores(self.kept, self.refines, self.measures, self.refinement)
        try:
            scores._add_all(batch)
        except UserError as error:
            if not may_fail:
                raise
            if len(batch) > 1:
                for one in batch:
                    self.add([one], may_fail=True)
                return
            item = batch[0].prompted.recorded.item
            self.failed.append(Failure(id=item.id, setting=item.setting, reason=str(error)))
            return
        self.absorb(scores.as_json())
        self.waves |= scores.waves

    def _add_all(self, batch: Sequence[SeparatedMixture]) -> None:
        scored: list[tuple[SeparatedMixture, list[Wave], list[ScoreRow]]] = []
        for one in batch:
            prompted, item = one.prompted, one.prompted.recorded.item
            finite = bool(np.isfinite(one.target).all() and np.isfinite(one.residual).all())
            self.not_finite += not finite
            targets, rows = [], []
            for refine in self.refines:
                target, row = self._row(one, refine, finite)
                self.scored.append((prompted.right, row))
                targets.append(target)
                rows.append(row)
            if prompted.right and prompted.kind != ABSENT:
                if finite:
                    scored.append((one, targets, rows))
                self.described.append(describe(prompted.recorded))
            if prompted.right and prompted.kind in self.kept:
                self.waves[wave_name(item.setting, item.id)] = (one.target, one.residual)
        if scored:
            separated, waves, rows_of = zip(*scored, strict=True)
            columns = scorer_columns.score_targets(self.measures.scorers, separated, waves)
            for rows, values in zip(rows_of, columns, strict=True):
                for row, more in zip(rows, values, strict=True):
                    row |= more

    def _row(self, one: SeparatedMixture, refine: str, finite: bool) -> tuple[Wave, ScoreRow]:
        """The target as generated or refined, and its scores but for those of networks."""
        prompted, recorded = one.prompted, one.prompted.recorded
        item, stems = recorded.item, (one.target, one.residual)
        if refine == "wiener" and finite:
            spans = prompted.positive_spans() or ()
            stems = baselines.masked(
                recorded.mixture, stems, recorded.sample_rate, self.refinement, spans
            )
        name = f"model/{refine}/{prompted.kind}"
        row: ScoreRow = {"id": item.id, "setting": item.setting, "row": name}
        level = level_db(stems[0], recorded.mixture) if finite else math.nan
        if prompted.kind == ABSENT:  # there is no true target
            return stems[0], row | {ABSENT_LEVEL: level}
        if isinstance(recorded, Rendered):
            row |= score(recorded, *stems)
            if finite and prompted.right:
                refined = dataclasses.replace(one, target=stems[0], residual=stems[1])
                for distance in self.measures.distances:
                    row |= DISTANCES[distance](refined, recorded, stems[0])
            row |= {"level": level, "kept": kept_db(stems[0], recorded) if finite else math.nan}
        else:
            row |= {"level": level}
        if prompted.right and one.predicted and item.spans:
            row |= {SPAN_IOU: span_iou(one)}
        return stems[0], row

    def following(self) -> list[ScoreRow]:
        """One row for each mixture, kind of prompt and refinement that both prompts separated.

        A prompt is followed where the stem of the right prompt is closer to the true target than
        the stem of the wrong prompt is.
        """
        rows = []
        by_wrong = {(row["id"], row["row"]): row for right, row in self.scored if not right}
        for ours in self.rows:
            name, row = ours["id"], ours["row"]
            wrong = by_wrong.get((name, row))
            if wrong is None or math.isnan(ours["sisdr"] + wrong["sisdr"]):
                continue
            levels = {
                f"{column}_{prompt}": one[column]
                for column in ("level", "kept")
                for prompt, one in (("right", ours), ("wrong", wrong))
            }
            rows.append(
                {
                    "id": name,
                    "setting": ours["setting"],
                    "row": row,
                    "following": ours["sisdr"] > wrong["sisdr"],
                    "following_logmel": ours["logmel"] < wrong["logmel"],
                    "sisdr_right": ours["sisdr"],
                    "sisdr_wrong": wrong["sisdr"],
                    "logmel_right": ours["logmel"],
                    "logmel_wrong": wrong["logmel"],
                    **levels,
                }
            )
        return rows

    def reworded(self) -> list[ScoreRow]:
        """What each other wording changes against the plain text, in dB of SI-SDR improvement."""
        plain = {(row["id"], row["row"]): row for row in self.rows}
        rows = []
        for row in self.rows:
            model, refine, kind = row["row"].split("/")
            if kind in WORDINGS:
                change = row["sisdri"] - plain[row["id"], f"{model}/{refine}/text"]["sisdri"]
                names = {name: row[name] for name in ("id", "setting", "row")}
                rows.append(names | {REWORDED: change})
        return rows


def baseline_rows(rendered: Rendered, coded: baselines.StemPair | None) -> list[ScoreRow]:
    """The scores of every baseline on one mixture; `coded` are its stems through the codec."""
    truth = (rendered.target, rendered.residual)
    item = rendered.item
    estimates = baselines.baselines(rendered.mixture, truth, coded, rendered.sample_rate)
    return [
        {"id": item.id, "setting": item.setting, "row": name} | score(rendered, *stems)
        for name, stems in estimates.items()
    ]


def wave_name(setting: str, name: str) -> str:
    """By what the waves of an item are kept; an id may be in several settings."""
    return f"{setting}/{name}"


def span_iou(separated: SeparatedMixture) -> float:
    """Intersection over union of the spans that were predicted with the listed ones."""
    item = separated.prompted.recorded.item
    predicted = [(start, end) for token, start, end in separated.spans if token == "+"]
    return overlap(predicted, item.spans).iou
