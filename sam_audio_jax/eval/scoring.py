"""Scores of separated stems against the true ones, and whether a model follows its prompts."""

import math
from typing import Any

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.eval import baselines, distances
from sam_audio_jax.eval.mixtures import Rendered, Wave
from sam_audio_jax.eval.prompting import ABSENT, WORDINGS, PromptedMixture
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig

REFINES = ("none", "wiener")
COLUMNS = ("sisdri", "sisdri_residual", "sisdr", "sisdr_residual", "logmel", "logmel_residual")
FOLLOWING = ("following", "following_logmel")
# Levels in dB of the mixture, of the stem that is prompted for and of the true target in it.
LEVELS = ("level_right", "level_wrong", "kept_right", "kept_wrong")
REWORDED, ABSENT_LEVEL = "reworded", "absent_level"
FLOOR_DB = -120.0  # of a level; the stem is silent
ScoreRow = dict[str, Any]


def score(rendered: Rendered, target: Wave, residual: Wave) -> dict[str, float]:
    """The columns of one pair of stems, in dB; NaN where the stems are not finite."""
    if not (np.isfinite(target).all() and np.isfinite(residual).all()):
        return dict.fromkeys(COLUMNS, math.nan)
    columns: dict[str, float] = {}
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


class Scores:
    """Scores stems as they are separated; keeps only the waves that the report may play."""

    def __init__(self, kept_kind: str, refinement: RefineConfig = DEFAULT):
        self.kept_kind = kept_kind  # kind of prompt whose waves are kept
        self.refinement = refinement  # the model's
        self.waves: dict[str, tuple[Wave, Wave]] = {}
        self.not_finite = 0
        self.scored: list[tuple[bool, ScoreRow]] = []  # whether by the right prompt, and the scores

    @property
    def rows(self) -> list[ScoreRow]:
        """The scores of the right prompts."""
        return [row for right, row in self.scored if right]

    def absorb(self, other: "Scores") -> None:
        """Adds what another one holds behind its own."""
        self.waves |= other.waves
        self.not_finite += other.not_finite
        self.scored += other.scored

    def add(self, prompted: PromptedMixture, target: Wave, residual: Wave) -> None:
        """Scores the stems as generated and as refined on the mixture."""
        rendered, item = prompted.rendered, prompted.rendered.item
        finite = bool(np.isfinite(target).all() and np.isfinite(residual).all())
        self.not_finite += not finite
        for refine in REFINES:
            stems = (target, residual)
            if refine == "wiener" and finite:
                stems = baselines.masked(
                    rendered.mixture,
                    stems,
                    rendered.sample_rate,
                    self.refinement,
                    prompted.positive_spans() or (),
                )
            name = f"model/{refine}/{prompted.kind}"
            row = {"id": item.id, "setting": item.setting, "row": name}
            level = level_db(stems[0], rendered.mixture) if finite else math.nan
            if prompted.kind == ABSENT:  # there is no true target
                self.scored.append((True, row | {ABSENT_LEVEL: level}))
                continue
            row |= score(rendered, *stems)
            row |= {"level": level, "kept": kept_db(stems[0], rendered) if finite else math.nan}
            self.scored.append((prompted.right, row))
        if prompted.right and prompted.kind == self.kept_kind:
            self.waves[item.id] = (target, residual)

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
