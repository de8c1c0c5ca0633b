"""Writes an evaluation: results.json, report.html (needs no other file) and audio/ to listen to."""

import base64
import collections
import dataclasses
import html
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from sam_audio_jax import audio
from sam_audio_jax.eval import page
from sam_audio_jax.eval.baselines import NAMES
from sam_audio_jax.eval.prompting import PromptedMixture
from sam_audio_jax.eval.recorded import Rendered, Wave
from sam_audio_jax.eval.statistics import ALL, Cell, Interval, counted
from sam_audio_jax.eval.titles import MEANING, TABLES, digits_of, row_titles, score_title
from sam_audio_jax.infer.picture import spectrograms_png
from sam_audio_jax.workdir import Workdir

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
PUBLISHED = "Published (arXiv 2512.18099)"
MOST_MISSING = 100  # items that are in no number are named up to this many
LABELS = {
    "mixture": "mixture",
    "target": "target, refined",
    "target_generated": "target, as generated",
    "target_true": "true target",
    "residual": "residual, refined",
    "residual_generated": "residual, as generated",
    "residual_true": "true residual",
}


@dataclasses.dataclass(frozen=True)
class PlayedItem:
    """One mixture to listen to: the mixture, the separated stems, and the true ones if known."""

    prompted: PromptedMixture
    column: str  # by which it was chosen, "" where nothing is measured
    score: float | None  # in that column
    place: str  # among the items of its setting: median, worst or best, "" for others
    raw: tuple[Wave, Wave]
    refined: tuple[Wave, Wave] | None

    def waves(self) -> dict[str, Wave]:
        """File name -> signal, in the order of listening."""
        recorded, refined = self.prompted.recorded, self.refined
        waves = {"mixture": recorded.mixture}
        for number, stem in enumerate(("target", "residual")):
            waves[stem] = self.raw[number] if refined is None else refined[number]
            if refined is not None:
                waves[f"{stem}_generated"] = self.raw[number]
            if isinstance(recorded, Rendered):
                waves[f"{stem}_true"] = recorded.target if number == 0 else recorded.residual
        return waves

    def labels(self) -> dict[str, str]:
        """File name -> what a player is called; only stems beside refined ones are qualified."""
        whole = self.refined is not None
        return {
            name: LABELS[name] if whole else LABELS[name].split(",")[0] for name in self.waves()
        }


def write(
    folder: pathlib.Path,
    results: Mapping[str, Any],
    cells: Sequence[Cell],
    examples: Sequence[PlayedItem],
    workdir: str | pathlib.Path | None,
) -> None:
    """Writes all files of an evaluation into an existing, empty folder."""
    (folder / "results.json").write_text(json.dumps(_finite(results), indent=1, allow_nan=False))
    ids = [example.prompted.recorded.item.id for example in examples]
    for example in examples:
        recorded = example.prompted.recorded
        place = folder / "audio"
        if len(set(ids)) < len(ids):  # an item may be in several settings
            place /= recorded.item.setting
        for name, wave in example.waves().items():
            path = place / recorded.item.id / f"{name}.wav"
            audio.write_wav(path, wave[None], recorded.sample_rate)
    body = _head(results, cells) + _tables(results, cells) + _following(cells)
    body += _missing(results)
    if workdir is not None:
        body += _training(Workdir(pathlib.Path(workdir)).read_metrics())
    body += "".join(["<h2>Listen</h2>", *map(scene, examples)])
    body += _small_print(results)
    title = f"Evaluation on {results['bench']}"
    (folder / "report.html").write_text(page.document(title, body), encoding="utf-8")


def _finite(value: Any) -> Any:
    """Scores that are not finite become null, because NaN is not JSON."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _find(cells: Sequence[Cell], row: str, setting: str, column: str) -> Interval | None:
    """The interval of one cell; None where nothing was measured."""
    key = (row, setting, column)
    return next((c.interval for c in cells if (c.row, c.setting, c.column) == key), None)


def silence(results: Mapping[str, Any]) -> str:
    """A sentence on outputs that are digital silence though the true stem is not; "" for none."""
    found = results.get("silent", ())
    if not found:
        return ""
    rows = collections.Counter(f"{one['row']}, {one['stem']}" for one in found)
    listed = "; ".join(f"{row}: {count}" for row, count in rows.items())
    return (
        f"{len(found)} separated stems are digital silence where the true stem is not ({listed}). "
        "SI-SDR is 0 dB for silence by definition, an improvement wherever the mixture is below "
        '0 dB: such scores say nothing of quality (results.json, "silent")'
    )


def _tiles(results: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """The main numbers: three of known stems, and of networks the one of each kind of prompt.

    Beside those of known stems it is that of the first kind alone.
    """
    prompts = results["settings"]["prompts"]
    judged = prompts[:1] if any(cell.column == "sisdri" for cell in cells) else prompts
    wanted = [
        (f"model/wiener/{prompts[0]}", "sisdri", "SI-SDR improvement, refined"),
        (f"model/none/{prompts[0]}", "sisdri", "SI-SDR improvement, as generated"),
        (f"model/wiener/{prompts[0]}", "following", "Follows its prompt, refined"),
    ]
    for column in ("judge_overall", "clap", "imagebind"):
        wanted += [(f"model/none/{prompt}", column, TABLES[column]) for prompt in judged]
    tiles = []
    for row, column, what in wanted:
        interval = _find(cells, row, ALL, column)
        if interval is None:
            continue
        is_share = column == "following"
        unit = {"following": " %", "sisdri": " dB"}.get(column, "")
        mean, notes = page.mean_and_bounds(interval, percent=is_share, digits=digits_of(column))
        notes += [counted(interval.n, "mixture"), f"prompt: {html.escape(row.split('/')[2])}"]
        tiles.append(
            f'<div class="tile">{what}<b>{mean}{unit}</b><span class="soft">'
            f"{', '.join(notes)}</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _head(results: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """The title, the main numbers and what the measures mean."""
    listed, missing = sum(results["mixtures"].values()), len(results["missing"])
    columns = {cell.column for cell in cells}
    meaning = " ".join(text for column, text in MEANING.items() if column in columns)
    scorers = results["settings"].get("scorers", {})
    named = "; ".join(f"{name}: {described}" for name, described in scorers.items())
    meaning += f" Networks that scored here: {html.escape(named)}." if named else ""
    without = f" {missing} of them are in no number (see below)." if missing else ""
    return (
        f"<h1>Evaluation on {html.escape(results['bench'])}</h1>"
        f'<p class="soft">{listed} held-out mixtures, scored at '
        f"{results['settings']['sample_rate']} Hz; {100 * results['settings']['level']:.0f} % "
        f"bootstrap intervals over the mixtures.{without}</p>"
        f"{_tiles(results, cells)}<p>{meaning}</p>{_warning(results)}"
    )


def _warning(results: Mapping[str, Any]) -> str:
    words = silence(results)
    return f"<p><b>{html.escape(words)}.</b></p>" if words else ""


def _tables(results: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """One table for each measure: a row for each model and baseline, a column for each setting."""
    lacking = collections.Counter(one["setting"] for one in results["missing"])
    lacking[ALL] = len(results["missing"])
    listed = results["mixtures"] | results["parts"] | {ALL: sum(results["mixtures"].values())}
    counts = {setting: count - lacking[setting] for setting, count in listed.items()}
    heads = {
        setting: f"n={counts[setting]} of {count}" if lacking[setting] else f"n={count}"
        for setting, count in listed.items()
    }
    parts = []
    stems_known = any(cell.row in NAMES for cell in cells)
    first = ("sisdri", "sisdri_residual", "logmel", "logmel_residual") if stems_known else ()
    for column in dict.fromkeys([*first, *TABLES, *results["columns"]]):
        groups: dict[str, dict[str, list[Interval | float | None]]] = {}
        for cell in cells:
            if cell.column == column:
                heading, name = row_titles(cell.row)
                groups.setdefault(heading, {}).setdefault(
                    name, [_find(cells, cell.row, setting, column) for setting in heads]
                )
        for system in _published_systems(results, column):
            values = [
                results["published"].get(setting, {}).get(system, {}).get(column)
                for setting in heads
            ]
            groups.setdefault(PUBLISHED, {})[system] = values
        if groups:
            table = page.table(
                heads, groups, digits=digits_of(column), counts=list(counts.values())
            )
            parts.append(f"<h2>{score_title(column)}</h2>{table}")
    return "".join(parts)


def _published_systems(results: Mapping[str, Any], column: str) -> list[str]:
    """The systems of which a number of this column is published, in the order of the tables."""
    systems = [
        name
        for of_setting in results["published"].values()
        for name, columns in of_setting.items()
        if column in columns
    ]
    return list(dict.fromkeys(systems))


def _missing(results: Mapping[str, Any]) -> str:
    """What is in no number: settings that were not run, items without a usable recording."""
    lines = [f"{setting}: not run: {reason}" for setting, reason in results["not_run"].items()]
    for one in results["missing"][:MOST_MISSING]:
        lines.append("{setting}, {id}: {reason}".format(**one))
    if (more := len(results["missing"]) - MOST_MISSING) > 0:
        lines.append(f'and {more} more: results.json, "missing"')
    listed = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>In no number</h2><ul>{listed}</ul>" if lines else ""


def _following(cells: Sequence[Cell]) -> str:
    """The table of prompt following, by both distances."""
    settings = list(dict.fromkeys(c.setting for c in cells if c.column == "following"))
    settings = [*(s for s in settings if s != ALL), *(s for s in settings if s == ALL)]
    if not settings:
        return ""
    groups: dict[str, dict[str, list[Interval | None]]] = {}
    for column, measure in (("following", "SI-SDR"), ("following_logmel", "log-mel distance")):
        for cell in cells:
            if cell.column == column:
                heading, name = row_titles(cell.row)
                groups.setdefault(f"{heading}, measured by {measure}", {}).setdefault(
                    name, [_find(cells, cell.row, setting, column) for setting in settings]
                )
    return f"<h2>Prompt following</h2>{page.table(settings, groups, percent=True)}"


def _training(lines: Sequence[Mapping[str, Any]]) -> str:
    """The curves of the training that the lines of metrics.jsonl describe."""
    curves = {
        ("train", "loss"): "Training loss",
        ("eval", "sisdri/wiener/all/text"): "SI-SDR improvement, dB (refined, text)",
        ("eval", "following/wiener/all/text"): "Share of prompts followed (refined, text)",
    }
    charts = []
    for (group, key), title in curves.items():
        chosen = [line for line in lines if line.get("group") == group and key in line]
        finite = [line for line in chosen if math.isfinite(line[key])]
        if finite:
            steps = [line["step"] for line in finite]
            charts.append(page.chart(title, steps, [line[key] for line in finite]))
    return f'<h2>Training</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def scene(example: PlayedItem) -> str:
    """Players and spectrograms of one mixture."""
    prompted, waves, labels = example.prompted, example.waves(), example.labels()
    item, sample_rate = prompted.recorded.item, prompted.recorded.sample_rate
    players = "".join(player(labels[name], wave, sample_rate) for name, wave in waves.items())
    shown = [name for name in ("mixture", "target", "target_true") if name in waves]
    marks = [] if prompted.spans is None else [("+", *span) for span in item.spans]
    pictures = {labels[name]: waves[name] for name in shown}
    png = spectrograms_png(pictures, sample_rate, spans=marks)
    image = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(image, "WEBP", quality=80)
    source = _data("image/webp", image.getvalue())
    name = ", ".join(filter(None, (item.setting, item.id, example.place)))
    others = html.escape(", ".join(item.residual_captions))
    others = f' <span class="soft">out of: {others}</span>' if others else ""
    return (
        f'<div class="scene"><h3>{_prompt(example)}{others}</h3>'
        f'<span class="soft">{html.escape(name)}{_score(example)}</span>'
        f'<div class="players">{players}</div>'
        f'<img loading="lazy" alt="spectrograms" src="{source}"></div>'
    )


def _prompt(example: PlayedItem) -> str:
    """The prompt of an item in words."""
    prompted, item = example.prompted, example.prompted.recorded.item
    words = f"“{html.escape(item.caption)}”"
    parts = [words] if prompted.text is not None else []
    if prompted.spans is not None:
        parts.append("at " + ", ".join(f"{start:g} to {end:g} s" for start, end in item.spans))
    if prompted.video is not None:
        parts.append(f"the masked video of {words}")
    return " ".join(parts)


def _score(example: PlayedItem) -> str:
    """The score by which an item was chosen."""
    if example.score is None:
        return ""
    if example.column == "sisdri":
        refined = "" if example.refined is None else " (refined)"
        return f": SI-SDR improved by {page.formatted(example.score, 1)} dB{refined}"
    return f": {html.escape(score_title(example.column))} {example.score:.2f}"


def player(label: str, wave: Wave, sample_rate: int) -> str:
    """A player with a label, which is HTML; the sound is in the page."""
    return (
        f'<label>{label}<audio controls preload="metadata" '
        f'src="{_player_source(wave, sample_rate)}"></audio></label>'
    )


def _player_source(wave: Wave, sample_rate: int) -> str:
    """A data address of MP3, which every browser plays; of WAV at rates that MP3 does not have."""
    buffer, clipped = io.BytesIO(), np.clip(np.nan_to_num(wave), -1, 1)
    if sample_rate in MP3_RATES:
        soundfile.write(buffer, clipped, sample_rate, format="MP3", compression_level=0.2)
        return _data("audio/mpeg", buffer.getvalue())
    soundfile.write(buffer, clipped, sample_rate, format="WAV", subtype="PCM_16")
    return _data("audio/wav", buffer.getvalue())


def _data(kind: str, content: bytes) -> str:
    """A data address, so that the page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _small_print(results: Mapping[str, Any]) -> str:
    """The settings, and what was left out of the numbers."""
    alike, broken = results["not_told_apart_by_spans"], results["not_finite"]
    notes = list(results["remarks"])
    if alike:
        notes.append(
            f"{len(alike)} mixtures of two sources have no prompt of spans alone: both sources "
            f"sound at the same times: {', '.join(alike)}."
        )
    if broken:
        notes.append(f"{broken} outputs were not finite and are left out of every mean.")
    settings = html.escape(json.dumps(results["settings"], indent=1))
    return f"<h2>How it was measured</h2><p>{html.escape(' '.join(notes))}</p><pre>{settings}</pre>"
