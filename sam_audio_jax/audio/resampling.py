"""Other sample rates, of whole signals and of signals that arrive in blocks (soxr HQ)."""

import math

import numpy as np
import soxr
from jaxtyping import Float, Float32


def resample(
    samples: Float[np.ndarray, "... samples"], from_rate: int, to_rate: int
) -> Float32[np.ndarray, "... resampled"]:
    """Resamples the last axis (soxr HQ) to `ceil(samples * to_rate / from_rate)` samples."""
    samples = np.asarray(samples, np.float32)
    if from_rate == to_rate:
        return samples
    length = math.ceil(samples.shape[-1] * to_rate / from_rate)
    if samples.ndim == 1:
        resampled = soxr.resample(samples, from_rate, to_rate)[:length]
        return np.pad(resampled, (0, length - len(resampled)))
    out = np.empty((*samples.shape[:-1], length), np.float32)
    for index in np.ndindex(samples.shape[:-1]):
        out[index] = resample(samples[index], from_rate, to_rate)
    return out


class Resampler:
    """`resample` for a signal that arrives in blocks: the same samples, each a little later."""

    def __init__(self, from_rate: int, to_rate: int, channels: int):
        self.from_rate, self.to_rate = from_rate, to_rate
        self._samples_in = self._samples_out = 0
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32")

    @property
    def latency_s(self) -> float:
        """The longest wait of a sample for later ones: soxr works on about 1000 samples at once."""
        return 0.0 if self._stream is None else 1024 / min(self.from_rate, self.to_rate)

    def __call__(
        self, block: Float[np.ndarray, "samples channels"], *, last: bool = False
    ) -> Float32[np.ndarray, "resampled channels"]:
        """Returns the next samples; with `last` all that remain of what `resample` returns."""
        block = np.asarray(block, np.float32)
        self._samples_in += len(block)
        if self._stream is None:
            return block
        out = self._stream.resample_chunk(block, last=last).reshape(-1, block.shape[1])
        if last:
            rest = math.ceil(self._samples_in * self.to_rate / self.from_rate) - self._samples_out
            out = np.pad(out[:rest], ((0, max(0, rest - len(out))), (0, 0)))
        self._samples_out += len(out)
        return out
