"""Excerpts of single recordings, in batches: the training data of the codec."""

import dataclasses
import itertools

import numpy as np
import pytest

from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.excerpts import ExcerptConfig
from sam_audio_jax.data.pipeline import BatchStream, codec_excerpts
from sam_audio_jax.errors import UserError
from tests.data.toy import HOP, RATE, assert_equal, take


@pytest.fixture
def cfg(world) -> ExcerptConfig:
    return ExcerptConfig(source=SourceConfig(manifests=(world,)), seconds=0.5)


def excerpts(cfg: ExcerptConfig, batch: int = 4, **processes: int) -> BatchStream:
    return codec_excerpts(cfg, RATE, HOP, batch, **processes)


@pytest.mark.processes
def test_workers_change_nothing_and_a_run_goes_on_with_other_workers(cfg):
    """Starts two workers, each of which imports JAX."""
    alone = take(excerpts(cfg), 6)
    assert alone[0]["wave"].shape == (4, 3840)  # 12 frames: 12.5 rounds to even
    batches = excerpts(dataclasses.replace(cfg, workers=2))
    assert_equal(list(itertools.islice(batches, 5)), alone[:5])
    state = batches.get_state()
    batches.close()
    resumed = excerpts(cfg)
    resumed.set_state(state)
    assert_equal(take(resumed, 1), alone[5:])


def test_processes_share_the_batch_of_one(cfg):
    alone = take(excerpts(cfg), 2)
    for process in (0, 1):
        rows = slice(2 * process, 2 * process + 2)
        share = take(excerpts(cfg, process_index=process, process_count=2), 2)
        assert_equal(share, [{"wave": batch["wave"][rows]} for batch in alone])
    with pytest.raises(UserError, match="multiple of the 2 processes"):
        excerpts(cfg, 3, process_index=0, process_count=2)


def test_excerpts_are_loud_and_kinds_alternate(cfg):
    batches = excerpts(dataclasses.replace(cfg, seconds=1.0, gain_db=(0.0, 0.0), mixed=0.0), 8)
    assert len(batches.items.kinds) == 4
    for batch in take(batches, 2):
        wave = batch["wave"]
        assert wave.dtype == np.float32
        assert (np.abs(wave).max(axis=1) <= 1.0).all()
        assert (np.sqrt(np.mean(wave**2, axis=1)) > 0.03).all()
