"""Mel spectrograms of mixture and stems, one below the other, with common axes and levels."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import librosa
import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.audio.mel import mel_filters

RANGE_DB = 70.0  # levels further below the loudest one are black
BANDS = 128
COLUMNS = 1_600  # the most frames of a picture; those of a longer recording are pooled
BLOCK = 6_000  # frames analysed at once, so that memory does not grow with the recording
LONGEST_TITLE = 100  # characters
TICKS_HZ = (200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4)
MOST_NAMED = 30  # spans that have a sign beside their colour; more take long, and cover the picture
COLOURS = {"+": "#39d98a", "-": "#ff6b6b"}


def spectrograms_png(
    waves: Mapping[str, Float[np.ndarray, " samples"]],
    sample_rate: int,
    *,
    spans: Sequence[tuple[str, float, float]] = (),
    title: str = "",
) -> bytes:
    """Draws a PNG with one row per wave (name -> mono wave, all at `sample_rate`).

    `spans` are marked above the first row and shaded in every row: "+" green, "-" red. Equal input
    gives equal bytes.
    """
    from matplotlib.figure import Figure  # not above: for processes that draw pictures alone

    seconds = max(len(wave) for wave in waves.values()) / sample_rate
    pictures = {name: mel_db(wave, sample_rate) for name, wave in waves.items()}
    loudest = max(float(picture.max()) for picture in pictures.values())
    figure = Figure(figsize=(10, 0.9 + 2.0 * len(waves)), dpi=110, layout="constrained")
    rows = figure.subplots(len(waves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, picture) in zip(rows, pictures.items(), strict=True):
        axes.imshow(
            picture - loudest,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0,
            extent=(0, len(waves[name]) / sample_rate, 0, BANDS),
            interpolation="nearest",
        )
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
        axes.set_facecolor("black")
        _mark_spans(axes, spans)
        _frequency_axis(axes, sample_rate)
    rows[-1].set_xlim(0, seconds)
    rows[-1].set_xlabel("time in s")
    bar = figure.colorbar(rows[0].images[0], ax=list(rows), pad=0.01, aspect=40)
    bar.set_label("level in dB, loudest = 0")
    if title:
        figure.suptitle(_one_line(title), fontsize=11, parse_math=False)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # that the font has not: a box stands
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _one_line(title: str) -> str:
    """The title as one line of characters that can be drawn, cut where it is too long."""
    plain = "".join(c if c.isprintable() else " " for c in title)
    plain = " ".join(plain.split())
    return plain if len(plain) <= LONGEST_TITLE else f"{plain[: LONGEST_TITLE - 1]}…"


def mel_db(
    wave: Float[np.ndarray, " samples"], sample_rate: int
) -> Float[np.ndarray, "bands frames"]:
    """Returns mel power in dB: `BANDS` bands up to the Nyquist rate, about `COLUMNS` frames.

    At low rates there are fewer bands.
    """
    hop = max(1, round(0.01 * sample_rate))
    window = 6 * hop
    frames = math.ceil(len(wave) / hop) + 1
    pooled = math.ceil(frames / COLUMNS)
    block = pooled * max(1, BLOCK // pooled)
    bands = min(BANDS, window // 3)  # the lowest are then not narrower than a bin
    filters, columns = mel_filters(sample_rate, window, bands), []
    for start in range(0, frames, block):
        power = _power(wave, start, min(start + block, frames), window, hop)
        power = np.pad(power, ((0, -len(power) % pooled), (0, 0)), mode="edge")
        columns.append((power.reshape(-1, pooled, power.shape[-1]).mean(1) @ filters).T)
    return 10 * np.log10(np.concatenate(columns, axis=1) + 1e-12)


def _power(
    wave: Float[np.ndarray, " samples"], start: int, stop: int, window: int, hop: int
) -> Float[np.ndarray, "frames bins"]:
    """Returns the power of frames `start` to `stop`, from the part of the wave that they cover."""
    first = max(0, start - window // hop)
    part = np.asarray(wave[first * hop : stop * hop + window], np.float32)
    return np.square(np.abs(audio.stft(part, window, hop)))[start - first : stop - first]


def _frequency_axis(axes: Any, sample_rate: int) -> None:
    ticks = [hz for hz in TICKS_HZ if hz < 0.9 * sample_rate / 2]
    axes.set_yticks(librosa.hz_to_mel(ticks) / librosa.hz_to_mel(sample_rate / 2) * BANDS)
    axes.set_yticklabels(
        [f"{hz / 1000:g} k" if hz >= 1000 else f"{hz:g}" for hz in ticks], fontsize=7
    )
    axes.set_ylabel("Hz", fontsize=8)


def _mark_spans(axes: Any, spans: Sequence[tuple[str, float, float]]) -> None:
    """Draws a bar along the top and dashed edges, which leave the spectrogram readable."""
    of_axes = axes.get_xaxis_transform()  # seconds, and shares of the height
    for token, colour in COLOURS.items():
        own = [(start, end) for kind, start, end in spans if kind == token]
        bars = [(start, end - start) for start, end in own]
        axes.broken_barh(bars, (0.96, 0.04), transform=of_axes, color=colour, linewidth=0)
        edges = [edge for bounds in own for edge in bounds]
        axes.vlines(edges, 0, 1, transform=of_axes, color=colour, linestyle="--", linewidth=0.9)
        for start, _ in own if len(spans) <= MOST_NAMED else ():
            axes.text(
                start,
                0.93 * BANDS,
                f" {token}",
                color=colour,
                va="top",
                fontsize=11,
                fontweight="bold",
            )
