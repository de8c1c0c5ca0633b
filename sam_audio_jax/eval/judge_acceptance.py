"""What shows that a judge learned to hear, and not only the generator of its training table.

Its scores of simulated outputs of held-out recordings are compared with the true ones: kinds of
degradation that it was trained without, checkpoints in the order of their SI-SDR, and prompts that
are exchanged (docs/scoring.md, "Accepting a judge"). Intervals resample mixtures, because the
outputs of one mixture are alike.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sam_audio_jax import audio
from sam_audio_jax.data.degradations import KINDS
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.simulated_ratings import OUTPUTS, TABLE, UNTOUCHED
from sam_audio_jax.eval.statistics import LEVEL, RESAMPLES, Interval
from sam_audio_jax.files import read_jsonl
from sam_audio_jax.scorers.judge import AXES

COMPARED = ("recall", "precision")
MOSTLY_RIGHT = 3.0  # true precision above which an output is mostly the prompted sound
FEWEST_SYSTEMS = 3  # of an order

RowValues = Float[np.ndarray, " rows"]
SetValues = Float[
    np.ndarray, " sets"
]  # one number for the rows as they are, then for each resample


@dataclasses.dataclass(frozen=True)
class SimulatedTable:
    """The rows of a folder of `tools.simulated_ratings` with what is known of each."""

    folder: pathlib.Path
    rows: tuple[dict[str, Any], ...]  # of ratings.jsonl
    outputs: tuple[dict[str, Any], ...]  # of outputs.jsonl, in the same order

    @classmethod
    def read(cls, folder: pathlib.Path) -> "SimulatedTable":
        """Raises `UserError` for a folder that the tool has not finished."""
        rows, outputs = (tuple(read_jsonl(folder / name)) for name in (TABLE, OUTPUTS))
        if not rows or [row["id"] for row in rows] != [one["id"] for one in outputs]:
            raise UserError(f"{folder} has no {TABLE} with an {OUTPUTS} that fits it")
        return cls(folder, rows, outputs)

    @functools.cached_property
    def truth(self) -> Float[np.ndarray, "rows axes"]:
        """The true scores."""
        return np.array([[row["ratings"][axis] for axis in AXES] for row in self.rows])

    @functools.cached_property
    def mixtures(self) -> Int[np.ndarray, " rows"]:
        """The number of each row's mixture."""
        return np.array([one["number"] for one in self.outputs])

    @functools.cached_property
    def energy_db(self) -> RowValues:
        """The energy of each row's separated sound in that of its mixture, in dB."""
        wanted = [(row["separated"], row["mixture"]) for row in self.rows]
        energy = {name: self._energy(name) for name in {one for pair in wanted for one in pair}}
        ratio = [(energy[a] + 1e-9) / (energy[b] + 1e-9) for a, b in wanted]
        return 10 * np.log10(np.array(ratio))

    def _energy(self, name: str) -> float:
        return float(np.mean(np.square(audio.load(self.folder / name).samples, dtype=np.float64)))

    def is_mainly(self, kind: str) -> Bool[np.ndarray, " rows"]:
        """Rows whose first kind of degradation, or system, it is."""
        return np.array([row["system"] == kind for row in self.rows])

    def has_kind(self, kind: str) -> Bool[np.ndarray, " rows"]:
        """Rows that have a kind of degradation, first or second."""
        return np.array([any(one["kind"] == kind for one in row["kinds"]) for row in self.outputs])

    @property
    def models(self) -> list[str]:
        """Systems that are no degradation: the checkpoints, by name."""
        return sorted({row["system"] for row in self.rows} - {*KINDS, UNTOUCHED})


def left_out_kind(
    table: SimulatedTable,
    kind: str,
    scores: Float[np.ndarray, "rows axes"],
    textless: Float[np.ndarray, "rows axes"],
) -> dict[str, Any]:
    """How a judge that never met `kind` agrees with the truth on it, beside two baselines.

    The energy ratio takes a louder output for one of more recall and less precision.
    """
    chosen = table.is_mainly(kind)
    result: dict[str, Any] = {"outputs": int(chosen.sum())}
    weights = _resampled(table.mixtures[chosen])
    for axis in COMPARED:
        column = AXES.index(axis)
        energy = table.energy_db if axis == "recall" else -table.energy_db
        by = {"judge": scores[:, column], "no text": textless[:, column], "energy ratio": energy}
        truth = table.truth[chosen, column]
        found = {name: _pccs(values[chosen], truth, weights) for name, values in by.items()}
        result[axis] = {
            name: _interval(values, len(truth)).as_dict() for name, values in found.items()
        } | {
            f"judge - {name}": _interval(found["judge"] - found[name], len(truth)).as_dict()
            for name in ("no text", "energy ratio")
        }
        result[axis]["better than both"] = all(
            result[axis][f"judge - {name}"]["low"] > 0 for name in ("no text", "energy ratio")
        )
    result["better than both"] = all(result[axis]["better than both"] for axis in COMPARED)
    return result


def order_of_models(
    table: SimulatedTable, scores: Float[np.ndarray, "rows axes"]
) -> dict[str, Any] | None:
    """Kendall's tau of the models' mean overall scores and mean true SI-SDR, own prompts.

    A pair of models counts 1 in the same order, -1 in the other, 0 in a tie. Over mixtures that
    every model separated. None for fewer than three models.
    """
    if len(table.models) < FEWEST_SYSTEMS:
        return None
    own = np.array([one["prompt"] == "own" for one in table.outputs])
    rows = {name: np.flatnonzero(own & table.is_mainly(name)) for name in table.models}
    shared = set.intersection(*(set(table.mixtures[chosen]) for chosen in rows.values()))
    si_sdr = np.array([one["si_sdr"] for one in table.outputs])
    numbers = np.array(sorted(shared))

    def means(values: RowValues) -> Float[np.ndarray, "models mixtures"]:
        return np.array(
            [
                [values[chosen[table.mixtures[chosen] == number]].mean() for number in numbers]
                for chosen in rows.values()
            ]
        )

    by_judge, by_truth = means(scores[:, AXES.index("overall")]), means(si_sdr)
    weights = _resampled(numbers)
    signs = [np.sign(_differences(weights @ means.T)) for means in (by_judge, by_truth)]
    taus = np.mean(signs[0] * signs[1], axis=1)
    systems = {
        name: {"overall": float(a.mean()), "si_sdr": float(b.mean())}
        for name, a, b in zip(rows, by_judge, by_truth, strict=True)
    }
    return {"tau": _interval(taus, len(numbers)).as_dict(), "models": systems}


def exchanged_prompts(
    table: SimulatedTable, scores: Float[np.ndarray, "rows axes"]
) -> dict[str, Any]:
    """Share of two-source outputs whose precision falls when the other sound is prompted for.

    Of outputs that are mostly the sound of one prompt (true precision above 3) and less so that of
    the other; of all of them, of true stems alone, and of each pair of domains.
    """
    column = AXES.index("precision")
    rows = {one["id"]: number for number, one in enumerate(table.outputs)}
    pairs = [
        (number, rows[one["other"]])
        for number, one in enumerate(table.outputs)
        if one["other"] is not None
    ]
    truth = table.truth[:, column]
    pairs = [(a, b) for a, b in pairs if truth[a] > MOSTLY_RIGHT and truth[b] < truth[a] - 0.5]
    falls = np.array([scores[a, column] > scores[b, column] for a, b in pairs], np.float64)
    first = np.array([a for a, _ in pairs], int)
    domains = np.array(
        [" / ".join(sorted((table.rows[a]["domain"], table.rows[b]["domain"]))) for a, b in pairs]
    )
    groups = {"all": np.ones(len(pairs), bool)}
    groups["true stems"] = table.is_mainly(UNTOUCHED)[first]
    groups |= {name: domains == name for name in sorted(set(domains))}
    result = {}
    for name, chosen in groups.items():
        if chosen.any():
            weights = _resampled(table.mixtures[first[chosen]])
            shares = weights @ falls[chosen] / np.maximum(weights.sum(axis=1), 1)
            result[name] = _interval(shares, int(chosen.sum())).as_dict()
    return result


def _resampled(mixtures: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "sets rows"]:
    """How often each row counts: once in the first set, as its mixture was drawn in the others."""
    names, which = np.unique(mixtures, return_inverse=True)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    counts = np.stack([np.bincount(one, minlength=len(names)) for one in drawn])
    return np.concatenate([np.ones((1, len(which))), counts[:, which]])


def _pccs(x: RowValues, y: RowValues, weights: Float[np.ndarray, "sets rows"]) -> SetValues:
    """Pearson's correlation in every set; 0 where a side is constant, which orders nothing."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = shares @ x, shares @ y
    covariance = shares @ (x * y) - mean_x * mean_y
    variances = (shares @ (x * x) - mean_x**2) * (shares @ (y * y) - mean_y**2)
    return np.where(variances > 1e-12, covariance / np.sqrt(np.maximum(variances, 1e-12)), 0.0)


def _differences(values: Float[np.ndarray, "sets models"]) -> Float[np.ndarray, "sets pairs"]:
    """The differences of all pairs of columns."""
    first, second = np.triu_indices(values.shape[1], 1)
    return values[:, first] - values[:, second]


def _interval(values: SetValues, n: int) -> Interval:
    """The first set's value, and the percentile interval of the others."""
    outside = (1 - LEVEL) / 2
    low, high = np.nanquantile(values[1:], [outside, 1 - outside])
    return Interval(float(values[0]), float(low), float(high), n)
