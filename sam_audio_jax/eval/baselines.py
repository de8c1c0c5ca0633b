"""Reference points for the scores: the untouched mixture, the limits of the codec and of masks.

None of them separates anything; all but the mixture are computed from the true stems.
"""

import dataclasses
from collections.abc import Sequence

from sam_audio_jax.audio import AS_RECORDED, Level
from sam_audio_jax.codec import chunked
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.eval.prompting import fit
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.infer import refine
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.separator.prompts import Span

StemPair = tuple[Wave, Wave]  # target and residual

NAMES = {
    "mixture": "mixture itself",
    "codec": "true stems through the codec",
    "codec+wiener": "true stems through the codec, as a mask",
    "oracle": "oracle ratio mask",
}

# The mask of every bin and window of the refinement's own STFT alone: no pooling, no smoothing.
ORACLE = dataclasses.replace(refine.DEFAULT, band_erb=1e-6, smooth_s=1e-6, usable=1.0, exponent=1.0)


def masked(
    mixture: Wave,
    stems: StemPair,
    sample_rate: int,
    config: refine.RefineConfig = refine.DEFAULT,
    spans: Sequence[Span] = (),
) -> StemPair:
    """Divides the mixture by a Wiener mask of `stems`, which have its rate and length."""
    target, residual = refine.wiener(
        mixture[None],
        *stems,
        sample_rate=sample_rate,
        stem_rate=sample_rate,
        config=config,
        spans=spans,
    )
    return target[0], residual[0]


def baselines(
    mixture: Wave, truth: StemPair, coded: StemPair | None, sample_rate: int
) -> dict[str, StemPair]:
    """Name -> target and residual; `coded` are the true stems through the codec, or None."""
    pairs = {"mixture": (mixture, mixture)}
    if coded is not None:
        pairs |= {"codec": coded, "codec+wiener": masked(mixture, coded, sample_rate)}
    return pairs | {"oracle": masked(mixture, truth, sample_rate, ORACLE)}


def through_codec(codec: Compiled[Codec], stems: StemPair, level: Level = AS_RECORDED) -> StemPair:
    """Encodes and decodes both stems in bounded memory; their lengths are kept.

    The codec gets them at `level`, at which the model gets their mixture.
    """
    coded = []
    for wave in stems:
        levelled = level.apply(wave)[None]
        decoded = chunked.decode_chunked(codec, chunked.encode_chunked(codec, levelled))
        coded.append(level.undo(fit(decoded, len(wave))))
    target, residual = coded
    return target, residual
