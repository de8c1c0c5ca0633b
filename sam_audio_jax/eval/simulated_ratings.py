"""A table of ratings made from recordings: mixtures, degraded separations, scores by true stems.

From it a judge can be trained without people (docs/scoring.md, "Simulated ratings"). Mixture `i`
and its outputs are functions of (seed, i) alone. A folder has

    plan.json          what it was made from; another plan does not continue it
    00012/             one mixture, whole: mixture.flac, its outputs, rows.jsonl
    00012.NAME/        outputs of a checkpoint for the same mixture
    ratings.jsonl      the table, for `sam-audio train-judge`
    outputs.jsonl      of each row of the table what was done, and the true SI-SDR
    systems.json       by which model the separations of each NAME are

A folder holds what its recordings and this code make of its plan now, or it is not continued:
before anything is added, mixtures and texts that are there are drawn again and compared.
"""

import dataclasses
import glob
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.bounds import Checked, SampleRate, Seed, Size
from sam_audio_jax.config import differences, to_dict
from sam_audio_jax.data import pipeline, text
from sam_audio_jax.data.arrange import Samples
from sam_audio_jax.data.config import DataConfig, MixConfig, SourceConfig
from sam_audio_jax.data.degradations import KINDS, Applied, TrueStems, degraded
from sam_audio_jax.data.mix import Mixer
from sam_audio_jax.data.mixture import Mixture
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.true_ratings import Reference, rate
from sam_audio_jax.files import (
    check_file_name,
    read_json,
    read_jsonl,
    read_object,
    whole_folder,
    write_json,
    write_jsonl,
)
from sam_audio_jax.nn.fingerprint import in_saved_form
from sam_audio_jax.scorers.judge import AXES

UNTOUCHED = "true stem"  # the kind of an output that is the true target
CONTENT = ("wrong source", "missing parts", "leakage")  # kinds of what is in an output
SECOND_SHARE = 0.65  # outputs that have a second kind; two of three times one of content
CONTENT_SHARE = 2 / 3
STRENGTHS = (0.1, 1.0)  # uniform
PLAN, TABLE, OUTPUTS, ROWS = "plan.json", "ratings.jsonl", "outputs.jsonl", "rows.jsonl"
SYSTEMS = "systems.json"
SAME_WAVE = 4 / 32768  # by which a mixture differs at most that another machine draws
DOMAINS = {"speech": "speech", "song": "music", "stem": "music", "instrument": "music"}
MIX = MixConfig(
    seconds=4.0,
    caption_draws=1.0,
    caption_power=0.5,
    near_share=0.1,
    filter_share=0.3,
    speed_of=(("sfx", 0.165),),
)

Separate = Callable[[Samples, int, str], Samples]  # mixture, sample rate, text -> target
_Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulationConfig(Checked, where="simulation"):
    """What the mixtures are made of, and how many outputs each has."""

    source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    mix: MixConfig = MIX
    sample_rate: SampleRate = 16_000
    outputs: Size = 5  # of each mixture; their kinds alternate
    kinds: tuple[str, ...] = (*KINDS, UNTOUCHED)
    exchange: bool = True  # rate each output for the prompt of the other sound, too
    seed: Seed = 0

    def __post_init__(self):
        super().__post_init__()
        allowed = (*KINDS, UNTOUCHED)
        if not self.kinds or set(self.kinds) - set(allowed):
            raise UserError(f"simulation.kinds={self.kinds} must be some of {', '.join(allowed)}")


class Simulation:
    """The mixtures of a config and their outputs."""

    def __init__(self, config: SimulationConfig):
        """Decodes the recordings. Raises `UserError` where they allow no mixture."""
        self.config = config
        data = DataConfig(source=config.source, mix=config.mix, seed=config.seed)
        self.mixer: Mixer = pipeline.mixer(data, config.sample_rate, 1)

    def mixture(self, number: int) -> Mixture:
        """Mixture `number`, at 16-bit amplitudes."""
        for attempt in range(100):
            mixture = self.mixer.draw(self._rng(number, 0, attempt))
            target, residual = _stored(mixture.target), _stored(mixture.residual)
            if np.any(target) and np.any(residual):
                return dataclasses.replace(
                    mixture, target=target, residual=residual, mixture=target + residual
                )
        raise UserError("100 mixtures in a row had a silent stem")

    def outputs(self, number: int) -> Iterator[tuple[list[Applied], Mixture, Samples]]:
        """What was applied, the mixture as its output's own prompt sees it, and the output."""
        for output, seen in enumerate(self.views(number, self.mixture(number))):
            rng = self._rng(number, 1, output)
            which = (number * self.config.outputs + output) % len(self.config.kinds)
            applied = _draw_kinds(self.config.kinds, self.config.kinds[which], rng)
            yield applied, seen, _stored(degraded(self.stems(seen), applied, rng))

    def views(self, number: int, mixture: Mixture) -> list[Mixture]:
        """Mixture `number` as the own prompt of each output sees it: its sounds take turns."""
        first = int(self._rng(number, 2).integers(2))
        swaps = [(first + output) % 2 == 1 for output in range(self.config.outputs)]
        return [
            mixture.exchanged() if swap and mixture.residual_texts else mixture for swap in swaps
        ]

    def prompts(self, number: int, output: int, view: Mixture) -> list[tuple[str, Mixture, str]]:
        """What an output is rated by: `own` or `other`, the mixture as that sees it, its text."""
        rng = np.random.default_rng((self.config.seed, number, output))
        seen = [("own", view)]
        if view.residual_texts and self.config.exchange:
            seen.append(("other", view.exchanged()))
        return [(name, one, text.choose(one.target_texts, 0.6, rng)) for name, one in seen]

    def stems(self, mixture: Mixture) -> TrueStems:
        """The stems of a mixture."""
        return TrueStems(mixture.target, mixture.residual, self.config.sample_rate)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, *key))


def simulate(folder: pathlib.Path, config: SimulationConfig, count: int) -> None:
    """Makes the first `count` mixtures with their outputs, those that are not there yet.

    Raises `UserError` for a folder of another plan, and for one to which mixtures would be added
    whose own are not those that its recordings make now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / PLAN).exists() and (differing := differences(read_json(folder / PLAN), config)):
        raise UserError(f"{folder} was made from another plan: {differing[0]}; name a new folder")
    write_json(folder / PLAN, to_dict(config))
    there = sorted(int(one.name) for one in folder.glob("[0-9]*") if one.name.isdecimal())
    if missing := sorted(set(range(count)) - set(there)):
        simulation = Simulation(config)
        for number in there:
            _check_drawn(folder, simulation, number)
        for number in missing:
            _write_mixture(folder, simulation, number)
    write_tables(folder)


def _check_drawn(folder: pathlib.Path, simulation: Simulation, number: int) -> Mixture:
    """Draws a mixture of the folder again; raises `UserError` where that makes another one."""
    mixture, place = simulation.mixture(number), folder / _name(number)
    if not (place / ROWS).is_file():
        raise UserError(f"{folder} has no mixture {_name(number)}: give a --count that makes it")
    saved = audio.load(place / "mixture.flac").samples[0]
    drawn = _stored(mixture.mixture)
    same = saved.shape == drawn.shape and bool(np.abs(saved - drawn).max() <= SAME_WAVE)
    views = enumerate(simulation.views(number, mixture))
    texts = [one[2] for output, view in views for one in simulation.prompts(number, output, view)]
    if not same or texts != [row["text"] for row in read_jsonl(place / ROWS)]:
        raise UserError(
            f"{place} is not the mixture that its plan makes now: recordings or captions, or the "
            "code that mixes, have changed since; name a new folder"
        )
    return mixture


def separate_all(
    folder: pathlib.Path,
    config: SimulationConfig,
    name: str,
    separate: Separate,
    count: int,
    *,
    by: Sequence[str | None],
) -> None:
    """Adds the separations of the first `count` mixtures by a model, as the system `name`.

    Both sounds of a mixture that have a name are separated by it. Those that are there are kept.
    `by` says which model it is: its place, by which errors call it, and what distinguishes it.
    Raises `UserError` where others are there under its name, and for a mixture that is not the one
    that its recordings make now, whose stems would be those of another.
    """
    check_file_name(name, "the name of a system")
    systems = _systems(folder, name, list(by))
    simulation = None
    for number in range(count):
        destination = folder / f"{_name(number)}.{name}"
        if destination.is_dir():
            continue
        simulation = simulation or Simulation(config)
        mixture = _check_drawn(folder, simulation, number)
        views = [mixture, mixture.exchanged()] if mixture.residual_texts else [mixture]
        write_json(folder / SYSTEMS, systems)
        with whole_folder(destination) as part:
            rows: list[_Row] = []
            for output, view in enumerate(views):
                words = view.target_texts[0]
                wave = _stored(separate(view.mixture, config.sample_rate, words))
                rows += _rows(simulation, number, name, output, [], view, wave, part, destination)
            write_jsonl(part / ROWS, rows)
    write_tables(folder)


def _systems(folder: pathlib.Path, name: str, by: list[str | None]) -> dict[str, Any]:
    """By which model the separations of each name are, with this one.

    Raises `UserError` where those of the name that are there are by another. The same weights in
    another place are the same model. A folder of an earlier version says less of it, and is
    compared by what it says.
    """
    systems = read_object(folder / SYSTEMS) if (folder / SYSTEMS).is_file() else {}
    there = name in systems or any(folder.glob(f"[0-9]*.{glob.escape(name)}"))
    saved = systems.get(name, ["an unknown model"])
    known = len(saved) > 1
    same = in_saved_form(by[1 : len(saved)], saved[1:]) == saved[1:]
    if there and not (known and same):
        was, now = (" ".join(filter(None, one)) for one in (saved, by))
        raise UserError(f"{folder} has separations {name!r} by {was}, not {now}: give another name")
    return systems | {name: by}


def write_tables(folder: pathlib.Path) -> None:
    """Gathers the rows of all mixtures that are there."""
    rows = [row for path in sorted(folder.glob(f"[0-9]*/{ROWS}")) for row in read_jsonl(path)]
    details = ("number", "prompt", "kinds", "si_sdr", "other")
    write_jsonl(
        folder / TABLE,
        ({key: value for key, value in row.items() if key not in details} for row in rows),
    )
    write_jsonl(folder / OUTPUTS, ({key: row[key] for key in ("id", *details)} for row in rows))


def _write_mixture(folder: pathlib.Path, simulation: Simulation, number: int) -> None:
    destination = folder / _name(number)
    with whole_folder(destination) as part:
        rows: list[_Row] = []
        for output, (applied, view, wave) in enumerate(simulation.outputs(number)):
            system = applied[0].kind if applied else UNTOUCHED
            rows += _rows(
                simulation, number, system, output, applied, view, wave, part, destination
            )
        mixture = simulation.mixture(number).mixture
        audio.write_flac(part / "mixture.flac", mixture[None], simulation.config.sample_rate)
        write_jsonl(part / ROWS, rows)


def _rows(
    simulation: Simulation,
    number: int,
    system: str,
    output: int,
    applied: Sequence[Applied],
    view: Mixture,
    wave: Samples,
    part: pathlib.Path,
    destination: pathlib.Path,
) -> list[_Row]:
    """Writes an output and rates it: for its own prompt, and for that of the other sound."""
    config = simulation.config
    audio.write_flac(part / f"{output}.flac", wave[None], config.sample_rate)
    folder = destination.name
    rows, prompts = [], simulation.prompts(number, output, view)
    reference = Reference.of(simulation.stems(view))
    for prompt, seen, words in prompts:
        scores = rate(wave, reference if prompt == "own" else reference.exchanged())
        si_sdr = audio.si_sdr(wave.astype(np.float64), seen.target.astype(np.float64))
        rows.append(
            {
                "mixture": f"{_name(number)}/mixture.flac",
                "separated": f"{folder}/{output}.flac",
                "text": words,
                "domain": DOMAINS.get(seen.category.split("/")[0], "sound"),
                "system": system,
                "id": f"{folder}/{output}/{prompt}",
                "ratings": {axis: round(getattr(scores, axis), 4) for axis in AXES},
                "number": number,
                "prompt": prompt,
                "kinds": [dataclasses.asdict(one) for one in applied],
                "si_sdr": round(float(si_sdr), 3),
                "other": f"{folder}/{output}/{'other' if prompt == 'own' else 'own'}"
                if len(prompts) > 1
                else None,
            }
        )
    return rows


def _draw_kinds(kinds: Sequence[str], first: str, rng: np.random.Generator) -> list[Applied]:
    """The first kind and, often, a second one; none for the true stem."""
    if first == UNTOUCHED:
        return []
    chosen = [first]
    others = [kind for kind in kinds if kind not in (first, UNTOUCHED)]
    if others and rng.random() < SECOND_SHARE:
        content = [kind for kind in others if kind in CONTENT]
        group = content if content and rng.random() < CONTENT_SHARE else others
        chosen.append(group[int(rng.integers(len(group)))])
    return [Applied(kind, round(float(rng.uniform(*STRENGTHS)), 4)) for kind in chosen]


def _name(number: int) -> str:
    return f"{number:05d}"


def _stored(wave: Samples) -> Samples:
    """The wave as a 16-bit file holds it: what is rated is what is stored."""
    return (np.clip(np.round(wave * 32768), -32768, 32767) / 32768).astype(np.float32)
