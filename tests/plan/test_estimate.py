"""The two rules of a step's time, by hand-made figures."""

import pytest

from sam_audio_jax.plan import chips
from sam_audio_jax.plan.estimate import Estimate, Work, seconds_of
from sam_audio_jax.plan.flops import Product
from sam_audio_jax.plan.schedule import Timeline


def estimate(realistic: float | None) -> Estimate:
    """A step with 100 useful operations on a chip that computes 10 a second."""
    work = Work(useful=100.0, done=120.0, seconds=12.0, realistic=realistic)
    schedule = Timeline(links=8.0, exposed=3.0)
    return Estimate(work=work, update=1.0, links=8.0, peak=10.0, schedule=schedule)


def test_the_realistic_step_has_the_exposed_part_of_the_collectives():
    timing = estimate(20.0)
    assert (timing.step, timing.step_exposed) == (13.0, 21.0)
    assert timing.step_realistic == 24.0
    assert timing.mfu_realistic == pytest.approx(100 / 240)
    assert timing.mfu_realistic < timing.mfu_exposed < timing.mfu


def test_a_chip_without_a_published_figure_has_no_realistic_one():
    timing = estimate(None)
    assert (timing.step_realistic, timing.mfu_realistic) == (None, None)


def test_a_product_is_limited_by_its_operations_or_by_its_bytes():
    chip = chips.CHIPS["v5e"]
    wide = Product(1, flops=197 * 10**9, moved=819 * 10**4, scores=0)
    assert seconds_of(wide, chip) == pytest.approx(1e-3)
    assert seconds_of(wide, chip, 0.5) == pytest.approx(2e-3)
    narrow = Product(1, flops=197 * 10**4, moved=819 * 10**6, scores=819 * 10**5)
    assert seconds_of(narrow, chip, 0.5, fused=False) == pytest.approx(1e-3)
    assert seconds_of(narrow, chip, 0.5) == pytest.approx(0.9e-3)
