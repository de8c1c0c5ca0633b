"""A study: trainings that differ in size and amount of data, and in nothing else.

long     one run of each width, measured at each of `steps`: the rate is constant after the
         warm-up and the weights are averaged, so each measurement is what a run of that
         length would have ended with (arXiv 2405.18392 finds averages as good as a cooldown)
grid     a run of its own, from other random numbers, for each width and number of steps
isoflop  runs of each width that spend each of `budgets`, in operations of training
rates    runs of each width with each of `rates`: where the best rate is, and whether it moves
"""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from sam_audio_jax.bounds import Checked, Positive, PositiveCount, Range, Size
from sam_audio_jax.config import FREE
from sam_audio_jax.errors import UserError
from sam_audio_jax.plan import operations
from sam_audio_jax.scaling.sizes import parameters, resized
from sam_audio_jax.train.config import TrainConfig

SEED_OF_AMOUNT = 1_000  # between the seeds of a grid's amounts of data


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig(Checked, where=""):
    """What is trained. Widths, rates and seeds may be added later, and larger steps and budgets:
    nothing is redone. `scaling/conditions.py` has what may not change."""

    # Everything that the runs share; width, depth, heads, mlp, steps, seed, eval_at and eval_scores
    # are the study's.
    base: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    design: Literal["long", "grid", "isoflop", "rates"] = "long"
    widths: tuple[Size, ...] = dataclasses.field(default=(), metadata=FREE)
    # At which losses are measured (long), or that runs have (grid; one number for rates).
    steps: tuple[PositiveCount, ...] = dataclasses.field(default=(), metadata=FREE)
    budgets: tuple[Positive, ...] = dataclasses.field(default=(), metadata=FREE)  # operations
    rates: tuple[Positive, ...] = dataclasses.field(default=(), metadata=FREE)
    seeds: PositiveCount = dataclasses.field(default=1, metadata=FREE)
    # Widths above this one have one seed only; 0: all have all.
    seeds_up_to: Annotated[int, Range(0, 1_000_000)] = dataclasses.field(default=0, metadata=FREE)
    weights: Literal["averaged", "live"] = dataclasses.field(default="averaged", metadata=FREE)
    # Stems whose scores are fitted: as generated (none), or as a mask on the mixture (wiener) where
    # the codec does not keep the wave, as that of `tiny`.
    refine: Literal["none", "wiener"] = dataclasses.field(default="none", metadata=FREE)
    # Whose overall score is measured, too: judge-tiny, sam-audio-judge or a folder; empty: none.
    judge: str = dataclasses.field(default="", metadata=FREE)
    # (width, hours of training data) whose loss is forecast.
    forecasts: tuple[tuple[Size, Positive], ...] = dataclasses.field(default=(), metadata=FREE)
    # Operations of training for which the best size is forecast.
    forecast_budgets: tuple[Positive, ...] = dataclasses.field(default=(), metadata=FREE)

    def __post_init__(self):
        super().__post_init__()
        needed = {"isoflop": ("budgets",), "rates": ("steps", "rates")}.get(self.design, ("steps",))
        for name in ("widths", *needed):
            if not getattr(self, name):
                raise UserError(f"{name} is empty, design={self.design} needs it")
        for name in ("widths", "steps", "budgets", "rates"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise UserError(f"{name}={values} must rise, each number once")
        if self.design == "rates" and len(self.steps) != 1:
            raise UserError(f"steps={self.steps} must be one number for design=rates")
        if not self.base.batch:
            raise UserError("base.batch=0: the batches of a study must be of one length")
        if not self.base.eval_bench:
            raise UserError("base.eval_bench is empty: it names the mixtures that losses are of")


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One training of a study."""

    name: str  # of its workdir
    config: TrainConfig
    measured: tuple[int, ...]  # the steps at which its losses are read

    @property
    def width(self) -> int:
        return self.config.separator.dit.width

    @property
    def parameters(self) -> int:
        """N, see `sizes.parameters`."""
        return parameters(self.config.separator)

    def seconds(self, step: int) -> float:
        """D after a step: seconds of mixtures in the batches, repeated ones and padding too."""
        return step * self.config.batch * self.config.data.mix.seconds

    def operations(self, step: int) -> int:
        """C after a step: of every network in the training step; see `plan/operations.py`."""
        return step * per_step(self.config)


def per_step(config: TrainConfig) -> int:
    """`operations.of_step` without what changes no operation, so that a size is counted once."""
    optim = dataclasses.replace(config.optim, peak_lr=1.0)
    return operations.of_step(dataclasses.replace(config, seed=0, steps=1, eval_at=(), optim=optim))


def runs(study: StudyConfig) -> list[StudyRun]:
    """All runs, those with the least work first.

    Raises `UserError` for a width that the rule of sizes does not have, for runs that end within
    twice the warm-up, whose loss says nothing of their size, and for two of one name.
    """
    planned = [run for width in study.widths for run in _runs_of(study, width)]
    for run in planned:
        warm_up = run.config.optim.warmup_steps
        if run.measured[0] <= 2 * warm_up:
            raise UserError(
                f"run {run.name} is measured after {run.measured[0]} steps, within twice the "
                f"warm-up of {warm_up}: set base.optim.warmup_steps lower or leave it out"
            )
    counts = collections.Counter(run.name for run in planned)
    if alike := [name for name, count in counts.items() if count > 1]:
        field = "budgets" if study.design == "isoflop" else "rates"
        raise UserError(
            f"{field}={getattr(study, field)} are too alike: {counts[alike[0]]} runs would have "
            f"the name {alike[0]} and so one workdir; take values that differ in it"
        )
    return sorted(planned, key=lambda run: run.parameters * run.config.steps)


def _runs_of(study: StudyConfig, width: int) -> Iterator[StudyRun]:
    """The runs of one width."""
    base = resized(study.base, width)
    for seed in range(study.seeds if width <= (study.seeds_up_to or width) else 1):
        match study.design:
            case "long":
                yield _run(base, f"w{width}-s{seed}", seed, study.steps)
            case "grid":
                for number, steps in enumerate(study.steps):
                    name = f"w{width}-n{steps}-s{seed}"
                    yield _run(base, name, seed + SEED_OF_AMOUNT * number, (steps,))
            case "isoflop":
                for number, budget in enumerate(study.budgets):
                    steps = max(round(budget / per_step(base)), 1)
                    name = f"w{width}-c{budget:.3g}-s{seed}"
                    yield _run(base, name, seed + SEED_OF_AMOUNT * number, (steps,))
            case "rates":
                for rate in study.rates:
                    optim = dataclasses.replace(base.optim, peak_lr=rate)
                    config = dataclasses.replace(base, optim=optim)
                    yield _run(config, f"w{width}-r{rate:g}-s{seed}", seed, study.steps)


def _run(base: TrainConfig, name: str, seed: int, measured: tuple[int, ...]) -> StudyRun:
    """A run that is measured after these steps and ends with the last of them.

    It measures held-out losses alone; scores are measured afterwards (`scores.py`).
    """
    config = dataclasses.replace(
        base,
        seed=base.seed + seed,
        steps=measured[-1],
        eval_every=0,
        eval_at=measured,
        eval_scores="none",
    )
    return StudyRun(name, config, measured)
