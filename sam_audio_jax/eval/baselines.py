"""What a number is worth: the untouched mixture, the limits of codec and mask, on the same items.

None of them separates anything; all but the mixture are told the true stems.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from sam_audio_jax.codec import chunked
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.eval.solve import fit
from sam_audio_jax.infer import refine

Wave = Float[np.ndarray, " samples"]
Stems = tuple[Wave, Wave]

NAMES = {
    "mixture": "mixture itself",
    "codec": "true stems through the codec",
    "codec+wiener": "true stems through the codec, as a mask",
    "oracle": "oracle ratio mask",
}

# Every bin and window of the refinement's own STFT by itself: no pooling, no smoothing.
ORACLE = dataclasses.replace(refine.DEFAULT, band_erb=1e-6, smooth_s=1e-6, usable=1.0, exponent=1.0)


def masked(
    mixture: Wave,
    stems: Stems,
    sample_rate: int,
    config: refine.RefineConfig = refine.DEFAULT,
) -> Stems:
    """The mixture divided by a Wiener mask made from `stems`, which have its rate and length."""
    target, residual = refine.wiener(
        mixture[None], *stems, sample_rate=sample_rate, stem_rate=sample_rate, config=config
    )
    return target[0], residual[0]


def baselines(
    mixture: Wave, truth: Stems, coded: Stems | None, sample_rate: int
) -> dict[str, Stems]:
    """Name -> target and residual; `coded` are the true stems through the codec, None to skip."""
    rows = {"mixture": (mixture, mixture)}
    if coded is not None:
        rows |= {"codec": coded, "codec+wiener": masked(mixture, coded, sample_rate)}
    return rows | {"oracle": masked(mixture, truth, sample_rate, ORACLE)}


def through_codec(codec: Codec, stems: Stems) -> Stems:
    """Encodes and decodes both stems in bounded memory; lengths are kept."""
    coded = []
    for wave in stems:
        decoded = chunked.decode_chunked(codec, chunked.encode_chunked(codec, wave[None]))
        coded.append(fit(decoded, len(wave)))
    target, residual = coded
    return target, residual
