"""The picture follows from its input alone and is as small for a long recording."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from sam_audio_jax.infer import picture


def test_picture_is_a_png_and_repeats_itself():
    wave = np.sin(np.arange(16_000) / 4).astype(np.float32)
    waves = {"mixture": wave, "target": 0 * wave, "residual": wave[:5_000]}
    png = picture.spectrograms_png(waves, 16_000, spans=[("+", 0.1, 0.4)], title="a tone")
    assert png == picture.spectrograms_png(waves, 16_000, spans=[("+", 0.1, 0.4)], title="a tone")
    pixels = matplotlib.image.imread(io.BytesIO(png))
    assert pixels.shape[1] > pixels.shape[0] > 500


def test_a_tone_is_bright_in_its_band_alone():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    level = picture.mel_db(tone, 16_000)[:, 20:80].mean(1)
    assert level.shape == (picture.BANDS,)
    bright = np.flatnonzero(level > level.max() - 20)
    assert 0.25 < bright.mean() / picture.BANDS < 0.4  # 1 kHz is a third of the way up to 8 kHz
    assert len(bright) < 12


def test_a_thousand_spans_are_a_few_parts_of_a_picture():
    axes = Figure().subplots()
    picture._mark_spans(axes, [("+-"[n % 2], float(n), n + 0.5) for n in range(1_000)])
    assert len(axes.get_children()) < 30


def test_frames_of_long_recordings_are_pooled():
    assert picture.mel_db(np.ones(8_000 * 60, np.float32), 8_000).shape[1] <= picture.COLUMNS


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "title",
    [
        "Ba$$in",
        "$^$",
        "$#%&$",
        r"\frac{",
        "犬 🐕 \u0645\u0631\u062d\u0628\u0627",
        "a\nb\0\x1b",
        "x" * 5_000,
    ],
)
def test_any_text_is_a_title(title):
    wave = np.sin(np.arange(4_000) / 4).astype(np.float32)
    assert picture.spectrograms_png({"a": wave}, 8_000, title=title).startswith(b"\x89PNG")
