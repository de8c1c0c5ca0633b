"""When a sound is on, from its energy (arXiv 2512.18099, data section of the appendix)."""

import numpy as np
from jaxtyping import Bool, Float

from sam_audio_jax.scorers.activity import runs

CELL_S = 0.01  # energy is measured in cells of 10 ms
FLOOR_DB = -40.0  # below the loudest cell: silence (published as about -40 dBFS)
MIN_S = 0.25  # shorter sounds are dropped (published), shorter silences filled (ours)
SILENT = 1e-3  # a wave whose loudest cell has a lower RMS has no activity at all


def active_cells(
    wave: Float[np.ndarray, " samples"], sample_rate: int, *, absolute: bool = False
) -> Bool[np.ndarray, " cells"]:
    """Whether each cell of 10 ms has energy; the last cell may be partial.

    That is an RMS within 40 dB of the loudest cell's, or `absolute`ly above -40 dBFS. Short sounds
    and short silences are still in it.
    """
    rms = np.sqrt(_cell_energies(wave, sample_rate) / round(CELL_S * sample_rate))
    return _active(rms, absolute=absolute)


def active_rms(wave: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """RMS over the active cells; 0 for silence."""
    cell = round(CELL_S * sample_rate)
    energies = _cell_energies(wave, sample_rate)
    active = _active(np.sqrt(energies / cell), absolute=False)
    if not active.any():
        return 0.0
    samples = active.sum() * cell - (-len(wave) % cell if active[-1] else 0)
    return float(np.sqrt(energies[active].sum(dtype=np.float64) / samples))


def _cell_energies(
    wave: Float[np.ndarray, " samples"], sample_rate: int
) -> Float[np.ndarray, " cells"]:
    """The sum of squares in each cell."""
    cell = round(CELL_S * sample_rate)
    missing = -len(wave) % cell
    cells = (np.pad(wave, (0, missing)) if missing else wave).reshape(-1, cell)
    return np.einsum("cs,cs->c", cells, cells)


def _active(rms: Float[np.ndarray, " cells"], *, absolute: bool) -> Bool[np.ndarray, " cells"]:
    """Which cells are not silent, by their RMS."""
    if absolute:
        return rms > 10 ** (FLOOR_DB / 20)
    peak = rms.max(initial=0.0)
    return rms > (peak * 10 ** (FLOOR_DB / 20) if peak > SILENT else np.inf)


def activity(
    wave: Float[np.ndarray, " samples"], sample_rate: int, hop: int, *, absolute: bool = False
) -> Bool[np.ndarray, " frames"]:
    """Whether the sound is on in each whole frame of `hop` samples; short runs are removed."""
    active = active_cells(wave, sample_rate, absolute=absolute)
    shortest = round(MIN_S / CELL_S)
    for start, end in runs(~active):
        if end - start < shortest and start > 0 and end < len(active):
            active[start:end] = True
    long = np.zeros_like(active)
    for start, end in runs(active):
        long[start:end] = end - start >= shortest
    active = long if long.any() else active  # a single click is kept
    centres = (np.arange(len(wave) // hop) + 0.5) * hop / round(CELL_S * sample_rate)
    return active[centres.astype(int)]


def overlap(one: Bool[np.ndarray, " frames"], other: Bool[np.ndarray, " frames"]) -> float:
    """Intersection over union of two activities; 1 when both are silent."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
