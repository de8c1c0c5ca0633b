"""Eight ways in which a separation is wrong, each at a known strength (docs/scoring.md).

A kind changes an estimate of the target of a mixture whose stems are known. Its strength is in 0
to 1: 0 changes nothing that one would hear, 1 is the worst that the kind can do. What that is in
decibels, bits or shares is written beside each kind, and all of it is ours.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from sam_audio_jax import audio
from sam_audio_jax.data import energy
from sam_audio_jax.data.arrange import Samples

FADE_S = 0.02  # of what begins or ends in the middle of a sound
WINDOW_S = 0.032  # of short-time spectra
HOPS = 4  # of a window
FILTER_ORDER = 24.0  # slope of a band's edge: dB per ERB
LOWEST_LOSS_DB = -60.0  # of lost bands


@dataclasses.dataclass(frozen=True)
class TrueStems:
    """The true stems of a mixture, mono; `mixture == target + residual`."""

    target: Samples
    residual: Samples
    sample_rate: int

    @property
    def mixture(self) -> Samples:
        """Their sum."""
        return self.target + self.residual

    def exchanged(self) -> "TrueStems":
        """The same mixture for the prompt of the residual."""
        return TrueStems(self.residual, self.target, self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Applied:
    """A kind and the strength at which it was applied."""

    kind: str
    strength: float


Change = Callable[[Samples, TrueStems, float, np.random.Generator], Samples]


def wrong_source(
    wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator
) -> Samples:
    """The residual instead of the estimate, for a share of the time in which either sounds.

    The share is the strength, in one stretch.
    """
    sounding = energy.active_cells(stems.mixture, stems.sample_rate)
    inside = _faded(_stretches(sounding, strength, 1, rng), stems.sample_rate, len(wave))
    return (wave * (1 - inside) + stems.residual * inside).astype(np.float32)


def missing(wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator) -> Samples:
    """Silence for 0.95 x strength of the time in which the target sounds, in up to 3 stretches."""
    sounding = energy.active_cells(stems.target, stems.sample_rate)
    count = int(rng.integers(1, 4))
    lost = _stretches(sounding, 0.95 * strength, count, rng)
    return (wave * (1 - _faded(lost, stems.sample_rate, len(wave)))).astype(np.float32)


def leakage(wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator) -> Samples:
    """The residual leaks in at -30 dB (strength 0) to 0 dB: the target becomes the mixture."""
    del rng  # nothing is drawn
    return (wave + 10 ** (1.5 * (strength - 1)) * stems.residual).astype(np.float32)


def band_loss(
    wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator
) -> Samples:
    """The highest, or the lowest, 0.85 x strength of the range on the ERB scale is lost."""
    frequency = np.fft.rfftfreq(len(wave), 1 / stems.sample_rate)
    erb = _erb(frequency)
    top = float(erb[-1])
    kept = (1 - 0.85 * strength) * top
    beyond = erb - kept if rng.random() < 0.5 else (top - kept) - erb
    gain_db = np.maximum(-FILTER_ORDER * np.maximum(beyond, 0), LOWEST_LOSS_DB)
    spectrum = np.fft.rfft(wave) * 10 ** (gain_db / 20)
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)


def musical_noise(
    wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator
) -> Samples:
    """Cells of the spectrum go missing at random, and single ones of the residual stay.

    0.9 x strength of the estimate's cells are lost, 0.1 x strength of the residual's are added, as
    after a spectral subtraction with a poor estimate of the noise.
    """
    window = HOPS * round(WINDOW_S * stems.sample_rate / HOPS)
    spectra = [audio.stft(one, window, window // HOPS) for one in (wave, stems.residual)]
    draws = rng.random((2, *spectra[0].shape))
    spectrum = spectra[0] * (draws[0] >= 0.9 * strength) + spectra[1] * (draws[1] < 0.1 * strength)
    return audio.istft(spectrum, window, window // HOPS, len(wave)).astype(np.float32)


def smear(wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator) -> Samples:
    """A room of exponentially decaying noise: 0.1 to 1.5 s of reverberation, up to 90 % of it.

    The energy stays.
    """
    reverberation_s = 0.1 + 1.4 * strength
    count = min(round(reverberation_s * stems.sample_rate), len(wave))
    time = np.arange(count) / stems.sample_rate
    tail = rng.standard_normal(count) * np.exp(-np.log(1000) * time / reverberation_s)
    tail /= np.sqrt(np.sum(np.square(tail)))
    size = 2 ** int(np.ceil(np.log2(len(wave) + count)))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave)]
    share = 0.9 * strength
    return _at_power(np.sqrt(1 - share) * wave + np.sqrt(share) * wet, wave)


def clipping(wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator) -> Samples:
    """Clipped at 10 dB (strength 0) above to 10 dB below the active level, which then stays."""
    del rng  # nothing is drawn
    level = energy.active_rms(wave, stems.sample_rate)
    limit = max(level, 1e-6) * 10 ** ((10 - 20 * strength) / 20)
    return _at_power(np.clip(wave, -limit, limit), wave)


def coding(wave: Samples, stems: TrueStems, strength: float, rng: np.random.Generator) -> Samples:
    """Quantised with 7 (strength 0) to 2 bits a sample on a mu-law scale, with dither."""
    peak = max(float(np.abs(wave).max()), 1e-6)
    steps = 2 ** (7 - 5 * strength)
    companded = np.sign(wave) * np.log1p(255 * np.abs(wave) / peak) / np.log(256)
    dither = rng.uniform(-0.5, 0.5, len(wave))
    companded = np.clip(np.round(companded * steps / 2 + dither) / (steps / 2), -1, 1)
    coded = np.sign(companded) * np.expm1(np.abs(companded) * np.log(256)) / 255 * peak
    return (coded * (np.abs(wave) > 0)).astype(np.float32)  # digital silence stays


# In the order in which they are applied: what is in the sound first, then how it sounds.
KINDS: Mapping[str, Change] = {
    "wrong source": wrong_source,
    "missing parts": missing,
    "leakage": leakage,
    "band loss": band_loss,
    "musical noise": musical_noise,
    "smear": smear,
    "clipping": clipping,
    "coding": coding,
}


def degraded(stems: TrueStems, applied: Sequence[Applied], rng: np.random.Generator) -> Samples:
    """The true target after several kinds, which are applied in the order of `KINDS`."""
    wave = stems.target
    order = list(KINDS)
    for one in sorted(applied, key=lambda one: order.index(one.kind)):
        wave = KINDS[one.kind](wave, stems, one.strength, rng)
    return wave


def _erb(hz: Float[np.ndarray, " bins"]) -> Float[np.ndarray, " bins"]:
    """The number of equivalent rectangular bandwidths below each frequency."""
    return 21.4 * np.log10(1 + 0.00437 * hz)


def _at_power(changed: Float[np.ndarray, " samples"], like: Samples) -> Samples:
    """The changed wave with the energy of `like`."""
    before, after = (float(np.sum(np.square(x, dtype=np.float64))) for x in (like, changed))
    return (changed * np.sqrt(before / max(after, 1e-12))).astype(np.float32)


def _stretches(
    sounding: Bool[np.ndarray, " cells"], share: float, count: int, rng: np.random.Generator
) -> Bool[np.ndarray, " cells"]:
    """Cells of which `share` of the sounding ones are in `count` stretches of equal sound."""
    where = np.flatnonzero(sounding)
    chosen = np.zeros(len(sounding), bool)
    size = round(share * len(where) / count)
    if size:
        free = len(where) - count * size
        for number, gap in enumerate(np.sort(rng.integers(0, free + 1, count))):
            first = gap + number * size
            chosen[where[first] : where[first + size - 1] + 1] = True
    return chosen


def _faded(
    cells: Bool[np.ndarray, " cells"], sample_rate: int, samples: int
) -> Float[np.ndarray, " samples"]:
    """1 inside the cells and 0 outside, with straight fades across their bounds."""
    inside = np.repeat(cells.astype(np.float64), round(energy.CELL_S * sample_rate))
    inside = np.pad(inside, (0, max(0, samples - len(inside))), mode="edge")[:samples]
    fade = max(1, round(FADE_S * sample_rate))
    padded = np.pad(inside, (fade // 2, fade - 1 - fade // 2), mode="edge")
    sums = np.concatenate([[0.0], np.cumsum(padded)])
    return (sums[fade:] - sums[:-fade]) / fade
