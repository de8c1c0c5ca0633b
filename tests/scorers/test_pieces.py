"""Pieces of recordings are the same samples as those of the whole, in batches of fixed shapes."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers import front_end
from sam_audio_jax.scorers.pieces import PieceShape, WavePiece, run_pieces
from tests.children import environment

SIZE, LENGTHS, BATCH = 130, (1, 700, 1537), 4
RATES = [(48_000, 16_000), (44_100, 16_000), (16_000, 16_000)]


class Nothing(nnx.Module):
    """A network without weights."""


def _resampled(network, source, skipped, lengths, *, shape):
    assert len(source) in (1, 2, BATCH)
    return shape.resample(source, skipped, lengths)


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_every_piece_equals_the_resampled_recording(from_rate, to_rate):
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=length).astype(np.float32) for length in LENGTHS]
    shape = PieceShape(size=SIZE, from_rate=from_rate, to_rate=to_rate)
    pieces, wanted = [], []
    for row, wave in enumerate(waves):
        whole = np.asarray(front_end.resample(jnp.asarray(wave[None]), from_rate, to_rate)[0])
        assert len(whole) == shape.resampled_length(len(wave))
        for start in {0, 1, 100, 257, len(whole) - 1} & set(range(len(whole))):
            length = min(SIZE, len(whole) - start)
            pieces.append(WavePiece(row, start, length))
            wanted.append(np.pad(whole[start : start + length], (0, SIZE - length)))
    got = run_pieces(Compiled(Nothing()), _resampled, waves, pieces, shape, batch=BATCH)
    np.testing.assert_allclose(got, np.stack(wanted), atol=2e-6)


@pytest.mark.long
@pytest.mark.processes
def test_pieces_are_sharded_over_a_mesh():
    done = subprocess.run(
        [sys.executable, str(pathlib.Path(__file__).parent / "pieces_on_eight_devices.py")],
        env=environment(devices=8, JAX_DEFAULT_MATMUL_PRECISION="highest"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
