"""SDR, SIR and SAR in the sense of BSS Eval, version 3: a short filter of a source is no error.

Paper: Vincent, Gribonval and Févotte, "Performance measurement in blind audio source separation",
IEEE TASLP 14(4), 2006. Definition: docs/scoring.md, "Metrics with references".
"""

from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are first used
from jaxtyping import Float, Int

from sam_audio_jax.errors import UserError

TAPS = 512  # of the filters, as published
PRECISION = 1e-9  # of the solution of the normal equations
HIGHEST_DB = 1e3  # stands for infinity where permutations are compared

Sources = Float[np.ndarray, "_ _"]  # sources, samples
PerSource = Float[np.ndarray, " sources"]


class BssEval(NamedTuple):
    """Ratios in dB, one for each reference; NaN where one of a pair is silent."""

    sdr: PerSource  # source to everything else
    sir: PerSource  # source to interference; infinite with one reference
    sar: PerSource  # sources to artefacts
    permutation: Int[np.ndarray, " sources"]  # the estimate that belongs to each reference


def bss_eval(
    estimates: Sources, references: Sources, *, taps: int = TAPS, permute: bool = True
) -> BssEval:
    """Compares mono estimates with the true sources of a mixture.

    What an estimate has of a source is its projection onto `taps` delayed copies of it. With
    `permute` estimates are assigned to references so that the mean SIR is largest; without it they
    are in the order of the references.

    Raises `UserError` for estimates that are not as many and as long as the references.
    """
    if estimates.shape != references.shape or not estimates.size:
        raise UserError(
            f"estimates of shape {estimates.shape} do not fit references of shape "
            f"{references.shape}: [sources, samples] of both must be equal and not empty"
        )
    count = len(references)
    sounding = [number for number, source in enumerate(references) if source.any()]
    ratios = np.full((3, count, count), np.nan)  # [kind, estimate, reference]
    if sounding:
        wide = references.astype(np.float64)
        whole = _DelayedSources(wide[sounding], taps)
        single = {number: _DelayedSources(wide[[number]], taps) for number in sounding}
        for i, estimate in enumerate(estimates.astype(np.float64)):
            if not estimate.any():
                continue
            padded, everything = np.pad(estimate, (0, taps - 1)), whole.project(estimate)
            for j, source in single.items():
                alone = source.project(estimate)
                ratios[:, i, j] = (
                    _decibels(alone, padded - alone),
                    _decibels(alone, everything - alone) if len(sounding) > 1 else np.inf,
                    _decibels(everything, padded - everything),
                )
    order = np.arange(count)
    if permute and count > 1:
        sir = np.nan_to_num(ratios[1], nan=-HIGHEST_DB, posinf=HIGHEST_DB, neginf=-HIGHEST_DB)
        order = scipy.optimize.linear_sum_assignment(sir.T, maximize=True)[1]
    return BssEval(*ratios[:, order, np.arange(count)], permutation=order)


class _DelayedSources:
    """The space that `taps` delayed copies of one or several sources span."""

    def __init__(self, sources: Sources, taps: int):
        self.taps = taps
        self.length = sources.shape[1] + taps - 1  # of a filtered source
        self.size = scipy.fft.next_fast_len(self.length + 1, real=True)
        self.spectra = np.fft.rfft(sources, self.size)
        self.gram = self._inner_products()
        try:
            self.factor = scipy.linalg.cho_factor(self.gram)
        except np.linalg.LinAlgError:  # delayed copies depend on each other
            self.factor = None

    def _correlation(self, one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, "*rows size"]:
        """Inner products of one signal with the other, delayed by each lag (cyclically)."""
        return np.fft.irfft(one * other.conj(), self.size)

    def _inner_products(self) -> Float[np.ndarray, "columns columns"]:
        """Inner products of all delayed sources: a Toeplitz block for each pair of sources."""
        count, lags = len(self.spectra), np.arange(self.taps)
        gram = np.empty((count, self.taps, count, self.taps))
        for i in range(count):
            for j in range(i, count):
                # <i delayed by a, j delayed by b> depends on a - b alone.
                products = self._correlation(self.spectra[j], self.spectra[i])
                block = scipy.linalg.toeplitz(products[lags], products[-lags])
                gram[i, :, j], gram[j, :, i] = block, block.T
        return gram.reshape(count * self.taps, -1)

    def project(self, signal: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " length"]:
        """The part of a signal that lies in the space."""
        spectrum = np.fft.rfft(signal, self.size)
        products = self._correlation(spectrum, self.spectra)[:, : self.taps].reshape(-1)
        filters = np.fft.rfft(self._solve(products).reshape(-1, self.taps), self.size)
        return np.fft.irfft((filters * self.spectra).sum(axis=0), self.size)[: self.length]

    def _solve(self, products: Float[np.ndarray, " columns"]) -> Float[np.ndarray, " columns"]:
        """The filters whose sum is nearest to a signal, from its inner products with the space.

        Sources without energy in a band make copies that nearly depend on each other: what
        Cholesky's factors do not solve to `PRECISION`, least squares do.
        """
        if self.factor is not None:
            filters = scipy.linalg.cho_solve(self.factor, products)
            rest = np.linalg.norm(self.gram @ filters - products)
            if rest <= PRECISION * np.linalg.norm(products):
                return filters
        return np.linalg.lstsq(self.gram, products)[0]


def _decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    """The ratio of two energies; infinite without noise."""
    energy, rest = float(np.square(signal).sum()), float(np.square(noise).sum())
    if not rest:
        return np.inf
    return 10 * np.log10(energy / rest) if energy else -np.inf
