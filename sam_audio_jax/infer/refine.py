"""Mixture-consistent refinement: masks from the generated stems divide the recording itself.

A generated stem is mono, at the codec's rate, and exact neither in phase nor in its fine spectrum.
Its coarse spectrum is right, so target and residual give a soft time-frequency mask (a Wiener
filter) for the recording: no sound is added, the phase is the recording's, every channel and the
sample rate are kept, and the two stems add up to the input. What a caller marks with `+` spans may
bound it besides: outside of them, with a margin, all of the recording is residual. Stems of several
texts are divided in the same way, by masks that add up to 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import scipy  # loads its parts when they are first used
from jaxtyping import Complex, Float

from sam_audio_jax import audio
from sam_audio_jax.bounds import Checked, NonNegative, Positive, Range, Seconds
from sam_audio_jax.separator.prompts import Span

Channels = Float[np.ndarray, "channels samples"]
Stem = Float[np.ndarray, " samples_codec"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineConfig(Checked, where="refine"):
    """How the spectra of the generated stems become a mask; the values are ours.

    They are tuned on mixtures of real recordings, with stems that had a random error of 10 dB in
    each of 80 mel bands x 40 ms. The optimum is flat: a factor of two in any value costs less than
    half a dB.
    """

    window_s: Seconds = 0.064  # analysis window of the recording
    overlap: Annotated[int, Range(2, 64)] = 4  # number of windows that cover one sample
    band_erb: Positive = 0.5  # distance of the bands that pool power, in ERB (see `_bands`)
    smooth_s: NonNegative = 0.03  # standard deviation of the smoothing of power over time
    # Of the power ratio: 1 is the Wiener filter, a larger one a harder mask. The better a model's
    # stems, the harder its mask may be, so a model folder has its own.
    exponent: Positive = 1.2
    # The least gain of a mask: 0.025 is -32 dB. Where a model finds nothing of what it is asked for
    # its target is a faint copy of the recording then, not what is left by chance.
    floor: Annotated[float, Range(0, 0.5)] = 0.0
    gate: bool = False  # whether the target is silent outside the "+" spans of a prompt
    gate_margin_s: NonNegative = 0.2  # before and after each of them: marks are never exact
    gate_ramp_s: Positive = 0.02  # in which the target falls to silence after the margin
    # Share of the codec's band in which the stems' power is used.
    usable: Annotated[float, Range(0, 1, (False, True))] = 0.92
    block_s: Positive = 60.0  # seconds divided at once: memory does not grow with the recording


DEFAULT = RefineConfig()


def wiener(
    mixture: Channels,
    target: Stem,
    residual: Stem,
    *,
    sample_rate: int,
    stem_rate: int,
    config: RefineConfig = DEFAULT,
    spans: Sequence[Span] = (),
    offsets: Float[np.ndarray, " channels"] | None = None,
    overwrite: bool = False,
) -> tuple[Channels, Channels]:
    """Divides `mixture` (at `sample_rate`) by a mask from the generated stems (at `stem_rate`).

    Both results have the mixture's shape and rate, float32, and add up to it: exactly if it was
    decoded from integers of up to 24 bits, else to one unit in the last place (ulp) of the larger
    stem. `spans` are the prompt's, which count if the config has a gate. `offsets` of the channels,
    if any, go to the residual. With `overwrite` the results may be written into the stems.
    """
    divided = divide_among(
        mixture,
        [target],
        [residual],
        sample_rate=sample_rate,
        stem_rate=stem_rate,
        config=config,
        spans=[spans],
        offsets=offsets,
        overwrite=overwrite,
    )
    return divided[0], divided[1]


def divide_among(
    mixture: Channels,
    stems: Sequence[Stem],
    residuals: Sequence[Stem] = (),
    *,
    sample_rate: int,
    stem_rate: int,
    config: RefineConfig = DEFAULT,
    spans: Sequence[Sequence[Span]] = (),
    offsets: Float[np.ndarray, " channels"] | None = None,
    overwrite: bool = False,
) -> list[Channels]:
    """`wiener` for any number of stems: one mask for each, which add up to 1.

    The last result is what the others leave of the mixture, its `offsets` included. Without
    `residuals` it is the last stem; with those of all stems, each generated beside its stem, it is
    one more: what no stem has. `spans` are those of each stem's prompt, for the config's gate: what
    it takes from a stem goes to what no stem has, without that to the stems that may sound there
    (`silent_gaps` says where none may).
    """
    mixture = np.asarray(mixture, np.float32)
    offsets = np.zeros(len(mixture), np.float32) if offsets is None else offsets
    size, count = mixture.shape[-1], len(stems) + bool(len(residuals))
    spans_of = [*spans, *[()] * (count - len(spans))]
    shared = not len(residuals) and any(is_gated(own, config) for own in spans_of)
    signals = [_fit_stem(stem, stem_rate, sample_rate, size) for stem in (*stems, *residuals)]
    hop, margin = hop_and_margin(sample_rate, config)
    block = max(1, round(config.block_s * sample_rate / hop)) * hop
    starts = range(0, size, block)
    energy = sum(_energy(signal[i : i + block]) for signal in signals for i in starts)
    divided = _results(mixture, signals[:count], overwrite=overwrite)
    # The signals from `left` to the end of the margin.
    context = np.empty((len(signals), 0), np.float32)
    for start in starts:
        stop, left = min(start + block, size), start - context.shape[1]
        cut = slice(left, min(stop + margin, size))
        ahead = np.stack([signal[start : cut.stop] for signal in signals])
        context = np.concatenate([context, ahead], axis=1)
        estimates = estimate_stems(
            audio.without_offsets(mixture[:, cut], offsets),
            context,
            sample_rate=sample_rate,
            stem_rate=stem_rate,
            level=energy / (len(signals) * size),
            config=config,
            residuals=len(residuals),
            spans=spans_of if shared else (),
            start=left,
        )
        # A copy: `divided` may overwrite the stems, and the next block needs them on its left.
        context = context[:, max(0, stop - margin) - left : stop - left]
        kept = [estimate[:, start - left : stop - left] for estimate in estimates]
        if shared:
            gains = [gate(own, start, stop - start, sample_rate, config) for own in spans_of]
            pieces = _shared(mixture[:, start:stop], kept, np.stack(gains), offsets)
        else:
            pieces, left_over = [], mixture[:, start:stop]
            for estimate, own in zip(kept, spans_of, strict=False):
                estimate = gated(estimate, own, start, sample_rate, config)
                piece, left_over = divide(left_over, estimate)
                pieces.append(piece)
            pieces.append(left_over)
        for whole, piece in zip(divided, pieces, strict=True):
            whole[:, start:stop] = piece
    return divided


def _shared(
    mixture: Channels,
    estimates: Sequence[Channels],
    gains: Float[np.ndarray, "stems samples"],
    offsets: Float[np.ndarray, " channels"],
) -> list[Channels]:
    """Returns a part of every stem, the last included, whose `estimates` are behind gates.

    The stems that may sound have equal parts of what the gates take away, which the masks have
    divided already but for their edges. The last of them has the offsets and what the others leave.
    """
    last = audio.without_offsets(mixture, offsets) - sum(estimates)
    pairs = list(zip([*estimates, last], gains, strict=True))
    freed = sum(wave * (1 - gain) for wave, gain in pairs)
    freed /= np.maximum(gains.sum(axis=0), np.float32(1e-6))
    final = len(gains) - 1 - np.argmax(gains[::-1] > 0, axis=0)
    pieces, left_over = [], mixture
    for number, (wave, gain) in enumerate(pairs):
        piece, others = divide(left_over, (wave + freed) * gain)
        pieces.append(np.where(final == number, left_over, piece))
        left_over = np.where(final == number, np.float32(0), others)
    return pieces


def _results(mixture: Channels, signals: Sequence[Stem], *, overwrite: bool) -> list[Channels]:
    """Returns an array for each result: the signals' own memory where it may be overwritten."""
    if overwrite and len(mixture) == 1 and all(signal.flags.writeable for signal in signals):
        return [signal[None] for signal in signals]
    return [np.empty_like(mixture) for _ in signals]


def hop_and_margin(sample_rate: int, config: RefineConfig) -> tuple[int, int]:
    """Returns the samples between spectra and the samples, on each side, that an estimate needs.

    The second is a multiple of the first, so that excerpts which begin at its multiples share the
    grid of spectra.
    """
    hop = max(1, round(config.window_s * sample_rate / config.overlap))
    margin = hop * config.overlap + hop * (1 + int(4 * config.smooth_s * sample_rate / hop))
    return hop, -(-margin // hop) * hop


def estimate_stems(
    mixture: Channels,
    signals: Float[np.ndarray, "signals samples"],
    *,
    sample_rate: int,
    stem_rate: int,
    level: float,
    config: RefineConfig,
    residuals: int = 0,
    spans: Sequence[Sequence[Span]] = (),
    start: int = 0,
) -> list[Channels]:
    """Returns all stems but the last in an excerpt; that is what they leave of the mixture.

    `signals` have its rate and were resampled from `stem_rate`; the last `residuals` of them are
    those of the others. `level` is the mean square of the whole signals; power far below it counts
    as silence. With the `spans` of all stems, none takes a share where it may not sound; `start` is
    then the excerpt's first sample in the recording.
    """
    hop, _ = hop_and_margin(sample_rate, config)
    window = hop * config.overlap
    bands = _bands(window, sample_rate, stem_rate, config)
    silence = max(1e-9 * window * level, 1e-20)
    spectra = audio.stft(signals, window, hop)
    # Windows that reach into a span count as in it: the gate changes nothing there.
    wide = dataclasses.replace(config, gate_margin_s=config.gate_margin_s + config.window_s / 2)
    frames = spectra.shape[1]
    gates = [gate(own, start, frames, sample_rate, wide, hop) for own in spans]
    masks = _masks(spectra, bands, hop / sample_rate, silence, config, residuals, gates)
    spectrum, size = audio.stft(mixture, window, hop), mixture.shape[-1]
    return [audio.istft(spectrum * mask, window, hop, size).astype(np.float32) for mask in masks]


def is_gated(spans: Sequence[Span], config: RefineConfig) -> bool:
    """Returns whether a stem is silent somewhere: the config has a gate and a span is a `+`."""
    return config.gate and any(token == "+" for token, _, _ in spans)


def gate(
    spans: Sequence[Span],
    start: int,
    count: int,
    sample_rate: int,
    config: RefineConfig,
    step: int = 1,
) -> Float[np.ndarray, " count"]:
    """Returns the gain of a stem at `count` samples from `start` on, `step` apart.

    It is 0 outside the `+` spans and their margins; 1 everywhere if the stem has no gate.
    """
    if not is_gated(spans, config):
        return np.ones(count, np.float32)
    time = (start + step * np.arange(count)) / sample_rate
    distance = np.full(count, np.inf)  # to the nearest of them, in seconds
    edge_s = config.gate_margin_s + config.gate_ramp_s + 1  # farther from a span it opens nothing
    for token, begin, end in spans:
        if token == "+":
            near = slice(*np.searchsorted(time, (begin - edge_s, end + edge_s)))
            distance[near] = np.minimum(
                distance[near], np.maximum(begin - time[near], time[near] - end)
            )
    gain = 1 - (distance - config.gate_margin_s) / config.gate_ramp_s
    return np.clip(gain, 0, 1).astype(np.float32)


def gated(
    estimate: Channels, spans: Sequence[Span], start: int, sample_rate: int, config: RefineConfig
) -> Channels:
    """Returns the excerpt of the target from sample `start` on, silent outside the `+` spans.

    It is returned as it is if the config has no gate or no span is a `+`.
    """
    if not is_gated(spans, config):
        return estimate
    return estimate * gate(spans, start, estimate.shape[-1], sample_rate, config)


def silent_gaps(
    spans: Sequence[Sequence[Span]], seconds: float, config: RefineConfig
) -> list[tuple[float, float]]:
    """Returns where, in a recording of `seconds`, no stem may sound; `spans` are those of each."""
    if not all(is_gated(own, config) for own in spans):
        return []
    edge_s = config.gate_margin_s + config.gate_ramp_s
    wanted = sorted(
        (begin - edge_s, end + edge_s) for own in spans for token, begin, end in own if token == "+"
    )
    gaps, done = [], 0.0
    for begin, end in [*wanted, (seconds, seconds)]:
        if min(begin, seconds) > done:
            gaps.append((done, min(begin, seconds)))
        done = max(done, end)
    return gaps


def divide(mixture: Channels, estimate: Channels) -> tuple[Channels, Channels]:
    """Returns the target nearest to `estimate`, and a residual with `target + residual == mixture`.

    The target is rounded to the ulp of the largest of the three numbers, so that difference and sum
    need no rounding; only a mixture finer than that ulp cannot be met exactly.
    """
    target = estimate.astype(np.float64)
    largest = np.maximum(np.maximum(np.abs(mixture), np.abs(target)), np.abs(mixture - target))
    ulp = np.spacing(largest.astype(np.float32)).astype(np.float64)
    target = (np.round(target / ulp) * ulp).astype(np.float32)
    return target, mixture - target


def _energy(wave: Stem) -> float:
    return float(np.sum(np.square(wave), dtype=np.float64))


def _fit_stem(
    stem: Stem, stem_rate: int, sample_rate: int, size: int
) -> Float[np.ndarray, " samples"]:
    """Returns the stem at the recording's rate and length."""
    stem = audio.resample(stem, stem_rate, sample_rate)[:size]
    return stem if len(stem) == size else np.pad(stem, (0, size - len(stem)))


def _bands(
    window: int, sample_rate: int, stem_rate: int, config: RefineConfig
) -> tuple[Float[np.ndarray, "bins bands"], int]:
    """Returns overlapping triangles, never narrower than a bin, and how many of them are used.

    The bands above those have no power in a stem that was resampled from `stem_rate`.
    """
    triangles, centres = audio.erb_bands(sample_rate, window, config.band_erb)
    return triangles, max(1, int(np.sum(centres <= config.usable * stem_rate / 2)))


def _masks(
    spectra: Complex[np.ndarray, "signals frames bins"],
    bands: tuple[Float[np.ndarray, "bins bands"], int],
    hop_s: float,
    silence: float,
    config: RefineConfig,
    residuals: int,
    gates: Sequence[Float[np.ndarray, " frames"]] = (),
) -> list[Float[np.ndarray, "frames bins"]]:
    """Returns the soft masks of all stems but the last, at their least where no stem has power."""
    triangles, usable = bands
    power = np.square(np.abs(spectra)) @ triangles
    if usable < power.shape[-1]:  # the stems end below: take the sum of their highest bands
        power[..., usable:] = power[..., max(0, usable - 4) : usable].sum(-1, keepdims=True)
    if config.smooth_s:
        sigma = config.smooth_s / hop_s
        power = scipy.ndimage.gaussian_filter1d(power, sigma, axis=1, mode="nearest")
    if residuals:
        power = _with_rest(power[:-residuals], power[-residuals:])
    shares = power**config.exponent
    least = np.full((len(shares), 1, 1), min(config.floor, 1 / len(shares)), np.float32)
    if gates:
        open_gates = np.stack(gates)[..., None]
        shares, least = shares * open_gates, least * open_gates
    total = shares.sum(axis=0) + silence**config.exponent
    masks = least[:-1] + (1 - least.sum(axis=0)) * (shares[:-1] / total)
    return [mask @ triangles.T for mask in masks]


def _with_rest(
    stems: Float[np.ndarray, "stems frames bands"],
    residuals: Float[np.ndarray, "stems frames bands"],
) -> Float[np.ndarray, "stems_and_rest frames bands"]:
    """The powers of the stems, and that of what no stem has.

    A residual has what no stem has and the other stems. Each gives an estimate, of which the
    smallest is taken: what one residual lacks, its stem has.
    """
    others = stems.sum(axis=0) - stems
    rest = np.maximum(residuals - others, 0).min(axis=0)
    return np.concatenate([stems, rest[None]])
