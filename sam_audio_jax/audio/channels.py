"""One channel of several, for networks that take one: the mean, unless it loses sound.

Channels of opposite sign are silent in their mean, but not to a listener with two ears. So
`ChannelMixer` measures how much of the loudness each of a list of weighted sums loses, and takes
the mean where that loses little (docs/model.md, "Level and channels").
"""

import collections
import functools

import numpy as np
import scipy  # loads its parts when they are first used
from jaxtyping import Float

from sam_audio_jax.audio.signal import stft

TILE_S = 0.06  # loudness is compared in tiles of this length and of a band
WINDOW_S = 0.04  # of the spectra, rounded to a power of two in samples
LOWEST_HZ = 30.0  # below it is no sound, but an offset and its drift
EXPONENT = 0.3  # loudness is about this power of energy (Stevens; Zwicker's specific loudness)
SAME = 1e-4  # channels that differ by less than this share of their energy are one
SOUNDING_DB = -40.0  # a second this far below the loudest one decides nothing
TOLERANCE = 0.03  # share of a second's loudness that the mean may lose
# More by this much of the share that comes later in one channel than in another: two microphones
# apart cancel some bands in the mean and strengthen others, and no sound is lost.
SHIFTED = 0.5
SKEW = float(np.tan(np.pi / 8))  # of unequal weights: sum and difference are 7.7 dB apart
MOST_SIGNED = 8  # channels of which all unequal sums are tried, too

MixingWeights = Float[np.ndarray, " channels"]


class ChannelMixer:
    """Measures channels as they arrive and says with which weights to add them up.

    `longest_s`: only so many of their last seconds count, for streams that go on for days.
    """

    def __init__(self, channels: int, sample_rate: int, longest_s: int | None = None):
        self.channels, self.sample_rate = channels, sample_rate
        self._rest = np.zeros((channels, 0), np.float32)  # samples of the second that is not over
        # Of each second its energy, and shares of loudness: see `_measure`.
        self._seconds: collections.deque = collections.deque(maxlen=longest_s)

    def add(self, samples: Float[np.ndarray, "channels samples"]) -> None:
        """Measures more samples; a second that is not complete waits for the next call."""
        if self.channels == 1:
            return
        size, start = self.sample_rate, 0
        if self._rest.shape[1]:
            start = min(size - self._rest.shape[1], samples.shape[1])
            self._rest = np.concatenate([self._rest, samples[:, :start]], axis=1)
            if self._rest.shape[1] < size:
                return
            self._seconds.append(self._measure(self._rest))
        whole = start + (samples.shape[1] - start) // size * size
        for begin in range(start, whole, size):
            self._seconds.append(self._measure(samples[:, begin : begin + size]))
        self._rest = samples[:, whole:].copy()

    @property
    def weights(self) -> MixingWeights:
        """The weights for what has been measured; their magnitudes add up to one."""
        candidates = _candidates(self.channels)
        seconds = list(self._seconds)
        if self._rest.shape[1]:
            seconds.append(self._measure(self._rest))
        if not seconds:
            return candidates[0]
        energy, tolerance, lost = (np.stack(part) for part in zip(*seconds, strict=True))
        sounding = energy > energy.max() * 10 ** (SOUNDING_DB / 10)
        if not np.any(lost[sounding, 0] > tolerance[sounding]):
            return candidates[0]
        cost = np.mean(np.square(lost[sounding]), axis=0)
        return candidates[int(np.argmin(np.round(cost, 6)))]

    def _measure(
        self, samples: Float[np.ndarray, "channels samples"]
    ) -> tuple[float, float, Float[np.ndarray, " candidates"]]:
        """Energy, what may be lost of the loudness and what each candidate loses, of a second."""
        weights = _candidates(self.channels)
        centred = samples - samples.mean(1, keepdims=True)
        energy = float(np.sum(np.square(centred, dtype=np.float64)))
        common = self.channels * float(np.sum(np.square(centred.mean(0), dtype=np.float64)))
        if energy - common <= SAME * energy:
            tiles, shift = np.ones((1, self.channels, self.channels)), np.zeros(1)
        else:
            tiles, shift = _covariances(centred, self.sample_rate)
        total = np.trace(tiles, axis1=1, axis2=2)
        tiles, shift, total = (part[total > 0] for part in (tiles, shift, total))
        if not len(total):
            return 0.0, 1.0, np.zeros(len(weights))
        mixed = np.sum((weights @ tiles) * weights, axis=-1)
        # 1: as loud as unrelated channels, or a single one, are in the mean
        kept = self.channels**2 * mixed / total[:, None]
        loudness = total**EXPONENT
        loudness /= loudness.sum()
        tolerance = TOLERANCE + SHIFTED * (loudness @ (shift / total))
        return energy, tolerance, loudness @ np.clip(1 - 2 * kept, 0, 1)


def mixing_weights(
    samples: Float[np.ndarray, "channels samples"], sample_rate: int
) -> MixingWeights:
    """Returns the weights with which the channels of a whole recording are added up."""
    mixer = ChannelMixer(len(samples), sample_rate)
    mixer.add(samples)
    return mixer.weights


def is_mean(weights: MixingWeights) -> bool:
    """Returns whether all channels have one weight."""
    return bool(np.all(weights == weights[0]))


def mono(
    samples: Float[np.ndarray, "channels samples"], weights: MixingWeights | None = None
) -> Float[np.ndarray, " samples"]:
    """Returns the weighted sum of the channels, by default their mean.

    A single channel is returned as it is, not copied.
    """
    if len(samples) == 1:
        return samples[0]
    if weights is None or is_mean(weights):
        return samples.mean(0)
    return weights.astype(samples.dtype) @ samples


def describe(weights: MixingWeights) -> str:
    """Returns a mix in words for a note, such as `0.50 x channel 1 - 0.50 x channel 2`."""
    parts = [
        f"{'-' if weight < 0 else '+'} {abs(weight):.2f} x channel {number}"
        for number, weight in enumerate(weights, 1)
        if weight
    ]
    return " ".join(parts).removeprefix("+ ")


@functools.cache
def _candidates(channels: int) -> Float[np.ndarray, "candidates channels"]:
    """The sums that are tried: mean, means with flipped signs, single channels, unequal weights.

    Of unequal weights no two cancel each other, whatever the signs of a sound in the channels.
    """
    order = 2 ** max(1, int(np.ceil(np.log2(max(channels, 2)))))
    signs = [row[:channels] for row in scipy.linalg.hadamard(order)]
    signs += [1.0 - 2.0 * single for single in np.eye(channels)]
    signs = list({tuple(row * row[0]): row * row[0] for row in signs}.values())
    rows = [*signs, *np.eye(channels)]
    for row in signs if channels <= MOST_SIGNED else signs[:1]:
        for single in np.eye(channels):
            rows.append(row * np.where(single, 1.0, SKEW))
    weights = np.asarray(rows, np.float64)
    return weights / np.abs(weights).sum(1, keepdims=True)


def _covariances(
    samples: Float[np.ndarray, "channels samples"], sample_rate: int
) -> tuple[Float[np.ndarray, "tiles channels channels"], Float[np.ndarray, " tiles"]]:
    """Energies and products of the channels in tiles of time and band, and what is shifted of it.

    The second is the magnitude of the products' imaginary part, summed over pairs of channels.
    """
    window = 2 ** max(4, round(np.log2(WINDOW_S * sample_rate)))
    spectra = stft(samples, window, window // 2)
    times = np.arange(0, spectra.shape[1], max(1, round(TILE_S * sample_rate / (window // 2))))
    bands = _band_starts(window, sample_rate)
    count = len(samples)
    tiles = np.empty((len(times), len(bands), count, count))
    shift = np.zeros(tiles.shape[:2])
    for one in range(count):
        for other in range(one + 1):
            product = (spectra[one] * spectra[other].conj()).astype(np.complex128)
            pooled = np.add.reduceat(np.add.reduceat(product, times, axis=0), bands, axis=1)
            tiles[:, :, one, other] = tiles[:, :, other, one] = np.real(pooled)
            shift += 2 / (count - 1) * np.abs(np.imag(pooled))
    # The first band is below LOWEST_HZ.
    return tiles[:, 1:].reshape(-1, count, count), shift[:, 1:].ravel()


@functools.cache
def _band_starts(window: int, sample_rate: int) -> np.ndarray:
    """The first bin of each band, an ERB wide or more; the first band is what is no sound."""
    bin_hz, starts = sample_rate / window, [0, max(1, round(LOWEST_HZ * window / sample_rate))]
    while True:
        hz = starts[-1] * bin_hz
        width = max(4, round(24.7 * (4.37e-3 * hz + 1) / bin_hz))
        if starts[-1] + 2 * width > window // 2:
            return np.asarray(starts)
        starts.append(starts[-1] + width)
