"""What the page draws of a wave: its extremes and its mel spectrogram, as bytes of one picture."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from sam_audio_jax.infer.picture import RANGE_DB, mel_db

COLUMNS = 1_600  # of the extremes; a screen has hardly more


@dataclasses.dataclass(frozen=True)
class Drawing:
    """The wave's extremes in `columns` parts of its time, and levels in bands and frames.

    `data` has the smallest value of each column, then the largest (128 is zero, 255 full scale),
    then the spectrogram from the lowest band to the highest (255 is `loudest_db`, 0 is `RANGE_DB`
    below it).
    """

    data: bytes
    columns: int
    bands: int
    frames: int
    loudest_db: float

    def facts(self) -> dict[str, int]:
        """The numbers that are needed to read the data."""
        return {"columns": self.columns, "bands": self.bands, "frames": self.frames}


def draw(
    wave: Float[np.ndarray, " samples"], sample_rate: int, loudest_db: float | None = None
) -> Drawing:
    """Draws a mono wave; `loudest_db` is the level of white, by default its own loudest one."""
    levels = mel_db(wave, sample_rate)
    loudest_db = float(levels.max()) if loudest_db is None else loudest_db
    shades = np.clip((levels - loudest_db) / RANGE_DB + 1, 0, 1) * 255
    extremes = _extremes(wave)
    bands, frames = levels.shape
    data = extremes.tobytes() + np.round(shades).astype(np.uint8).tobytes()
    return Drawing(data, extremes.shape[1], bands, frames, loudest_db)


def _extremes(wave: Float[np.ndarray, " samples"]) -> UInt8[np.ndarray, "2 columns"]:
    """The smallest and the largest sample of each of up to `COLUMNS` parts."""
    count = min(COLUMNS, len(wave))
    starts = np.arange(count) * len(wave) // count
    ends = (np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts))
    return np.clip(np.round(128 + 127 * np.stack(ends)), 1, 255).astype(np.uint8)
