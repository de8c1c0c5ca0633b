"""Writes an evaluation: results.json, report.html (needs no other file) and audio/ to listen to."""

import base64
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
from sam_audio_jax.eval.mixtures import Rendered, Wave
from sam_audio_jax.eval.statistics import ALL, Cell, Interval
from sam_audio_jax.infer.picture import spectrograms_png
from sam_audio_jax.workdir import Workdir

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MEANING = (
    "SI-SDR improvement: by how many dB the output is closer to the true stem than the untouched "
    "mixture is; 0 is doing nothing, higher is better. Log-mel distance: mean difference of the "
    "mel spectra in dB; lower is better, and the exact phase does not matter. Prompt following: "
    "the share of mixtures of two sources where the prompt for the right source gives a stem that "
    "is closer to it than the prompt for the other source does; 50 % is chance."
)
TABLES = {
    "sisdri": "SI-SDR improvement of the target, dB",
    "sisdri_residual": "SI-SDR improvement of the residual, dB",
    "logmel": "Log-mel distance of the target, dB",
    "logmel_residual": "Log-mel distance of the residual, dB",
    "absent_level_median": "Median level of the target for an absent sound, dB of the mixture",
    "reworded": "Another wording of the caption: change of the SI-SDR improvement, dB",
    "level_right": "Level of the target by its own prompt, dB of the mixture",
    "level_wrong": "Level of the target by the prompt of the other source, dB of the mixture",
    "kept_right": "Level of the true target in it by its own prompt, dB of the mixture",
    "kept_wrong": "Level of the true target in it by the prompt of the other source",
}
REFINED = {"none": "Model, as generated", "wiener": "Model, refined on the recording (wiener)"}
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
    """One mixture to listen to: the mixture, the true stems and the separated ones."""

    rendered: Rendered
    prompt: str  # its kind
    sisdri: float  # of the refined target, in dB
    raw: tuple[Wave, Wave]
    refined: tuple[Wave, Wave]

    def waves(self) -> dict[str, Wave]:
        """File name -> signal, in the order of listening."""
        return {
            "mixture": self.rendered.mixture,
            "target": self.refined[0],
            "target_generated": self.raw[0],
            "target_true": self.rendered.target,
            "residual": self.refined[1],
            "residual_generated": self.raw[1],
            "residual_true": self.rendered.residual,
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
    for example in examples:
        for name, wave in example.waves().items():
            path = folder / "audio" / example.rendered.item.id / f"{name}.wav"
            audio.write_wav(path, wave[None], example.rendered.sample_rate)
    body = _head(results, cells) + _tables(results, cells) + _following(cells)
    if workdir is not None:
        body += _training(Workdir(pathlib.Path(workdir)).read_metrics())
    body += "".join(["<h2>Listen</h2>", *map(_example, examples)])
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


def _head(results: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """The title, the three main numbers and what the measures mean."""
    prompt = html.escape(results["settings"]["prompts"][0])
    tiles = []
    for row, column, what in (
        (f"model/wiener/{prompt}", "sisdri", "SI-SDR improvement, refined"),
        (f"model/none/{prompt}", "sisdri", "SI-SDR improvement, as generated"),
        (f"model/wiener/{prompt}", "following", "Follows its prompt, refined"),
    ):
        interval = _find(cells, row, ALL, column)
        if interval is None:
            continue
        scale, unit = (100, "%") if column == "following" else (1, "dB")
        mean, low, high = (scale * v for v in (interval.mean, interval.low, interval.high))
        digits = 0 if unit == "%" else 1
        tiles.append(
            f'<div class="tile">{what}<b>{mean:.{digits}f} {unit}</b><span class="soft">'
            f"{low:.{digits}f} to {high:.{digits}f}, {interval.n} mixtures, prompt: {prompt}</span>"
            "</div>"
        )
    count = sum(results["mixtures"].values())
    return (
        f"<h1>Evaluation on {html.escape(results['bench'])}</h1>"
        f'<p class="soft">{count} held-out mixtures, scored at '
        f"{results['settings']['sample_rate']} Hz; {100 * results['settings']['level']:.0f} % "
        "bootstrap intervals over the mixtures.</p>"
        f'<div class="tiles">{"".join(tiles)}</div><p>{MEANING}</p>'
    )


def _tables(results: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """One table for each measure: a row for each model and baseline, a column for each setting."""
    counts = results["mixtures"] | results["parts"] | {ALL: sum(results["mixtures"].values())}
    settings = list(counts)
    heads = {setting: f"n={count}" for setting, count in counts.items()}
    parts = []
    for column, title in TABLES.items():
        groups: dict[str, dict[str, list[Interval | None]]] = {}
        for cell in cells:
            if cell.column == column:
                heading, name = _row_names(cell.row)
                groups.setdefault(heading, {}).setdefault(
                    name, [_find(cells, cell.row, setting, column) for setting in settings]
                )
        if groups:
            parts.append(f"<h2>{title}</h2>{page.table(heads, groups)}")
    return "".join(parts)


def _row_names(row: str) -> tuple[str, str]:
    """Group heading and label of a row."""
    if row in NAMES:
        return "Baselines (all but the mixture know the true stems)", NAMES[row]
    _, refine, prompt = row.split("/")
    return REFINED[refine], f"prompt: {prompt}"


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
                heading, name = _row_names(cell.row)
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


def _example(example: PlayedItem) -> str:
    """Players and spectrograms of one mixture."""
    item, waves = example.rendered.item, example.waves()
    sample_rate = example.rendered.sample_rate
    prompt = f"“{html.escape(item.caption)}”" if "text" in example.prompt else ""
    if "span" in example.prompt:
        prompt += " at " + ", ".join(f"{start:g} to {end:g} s" for start, end in item.spans)
    others = html.escape(", ".join(item.residual_captions))
    players = "".join(
        f'<label>{LABELS[name]}<audio controls preload="metadata" '
        f'src="{player_source(wave, sample_rate)}"></audio></label>'
        for name, wave in waves.items()
    )
    shown = ("mixture", "target", "target_true")
    marks = [("+", *span) for span in item.spans] if "span" in example.prompt else []
    png = spectrograms_png({LABELS[name]: waves[name] for name in shown}, sample_rate, spans=marks)
    image = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(image, "WEBP", quality=80)
    source = _data("image/webp", image.getvalue())
    return (
        f'<div class="scene"><h3>{prompt} <span class="soft">out of: {others}</span></h3>'
        f'<span class="soft">{html.escape(f"{item.setting}, {item.id}")}: {example.sisdri:.1f} dB '
        f'better than the mixture (refined)</span><div class="players">{players}</div>'
        f'<img loading="lazy" alt="spectrograms" src="{source}"></div>'
    )


def player_source(wave: Wave, sample_rate: int) -> str:
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
    notes = []
    if alike:
        notes.append(
            f"{len(alike)} mixtures of two sources have no prompt of spans alone: both sources "
            f"sound at the same times: {html.escape(', '.join(alike))}."
        )
    if broken:
        notes.append(f"{broken} outputs were not finite and are left out of every mean.")
    settings = html.escape(json.dumps(results["settings"], indent=1))
    return f"<h2>How it was measured</h2><p>{' '.join(notes)}</p><pre>{settings}</pre>"
