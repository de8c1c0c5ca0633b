"""The choice of a mask: which cells there are, what is measured, what is best."""

import numpy as np
import pytest

from sam_audio_jax.eval.mixtures import FixedMixture
from sam_audio_jax.eval.prompting import ABSENT, PROMPTS, PromptedMixture
from sam_audio_jax.eval.recorded import Rendered
from tools import choose_refinement as tool


@pytest.fixture
def rendered() -> Rendered:
    """Bursts against a tone, 3 s at 8 kHz."""
    rng, time = np.random.default_rng(0), np.arange(24_000) / 8_000
    bursts = (0.1 * rng.standard_normal(24_000) * (time % 1 < 0.5)).astype(np.float32)
    tone = (0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    item = FixedMixture(
        id="one",
        setting="sfx",
        caption="bursts",
        samples=24_000,
        sample_rate=8_000,
        spans=((0.0, 0.5), (1.0, 1.5), (2.0, 2.5)),
        target=(),
        residual=(),
        residual_captions=("tone",),
        peak=None,
        line=1,
    )
    return Rendered(item, bursts + tone, 8_000, bursts, tone)


def test_every_mask_is_measured_with_its_spans(rendered):
    by_span = PromptedMixture(rendered, "span", True, None, rendered.item.spans)
    masks = list(tool.masks(by_span, 3.0, 0.025))
    kinds = {bounds for *_, bounds in masks}
    assert len(masks) == len(tool.EXPONENTS) * (len(tool.FLOORS) + len(tool.WRONG)) > 0
    assert {"floor 0", "floor 0.025", "floor 0.025, gate, 0.2 s late"} < kinds
    for how, spans, bounds in masks:
        assert how.gate == bool(spans) == ("gate" in bounds)
        assert f"floor {how.floor:g}" in bounds
        if "late" in bounds:
            assert [span[1:] for span in spans] == [
                pytest.approx((begin + 0.2, end + 0.2)) for begin, end in rendered.item.spans
            ]
    by_text = PromptedMixture(rendered, "text", True, "bursts", None)
    assert len(list(tool.masks(by_text, 3.0, 0.0))) == len(tool.EXPONENTS) * len(tool.FLOORS)


def test_a_floor_costs_good_stems_and_saves_silent_ones(rendered):
    good, silent = (rendered.target, rendered.residual), (1e-3 * rendered.residual, rendered.target)
    free, bounded = (tool.RefineConfig(floor=floor) for floor in (0.0, 0.05))
    (gain, lowered), (with_floor, less) = (
        tool.measure(rendered, good, how, ()) for how in (free, bounded)
    )
    assert gain > with_floor > 10
    assert lowered > less > 20
    assert (
        tool.measure(rendered, silent, bounded, ())[0]
        > tool.measure(rendered, silent, free, ())[0] + 10
    )


def test_the_best_exponent_is_that_of_the_floor_in_the_mean_over_the_kinds():
    cells = {
        (kind, f"floor {floor:g}", exponent): [(-abs(exponent - best), 1.0), (0.0, 3.0)]
        for floor, best in ((0.0, 0.45), (0.025, 0.7))
        for exponent in tool.EXPONENTS
        for kind in PROMPTS
    }
    cells |= {(ABSENT, "floor 0", exponent): [(-40.0, -40.0)] for exponent in tool.EXPONENTS}
    assert tool.best_exponent(cells, 0.0) == 0.45
    assert tool.best_exponent(cells, 0.025) == 0.7
    lines = tool.table(cells).splitlines()
    assert len(lines) == 2 + 2 * len(PROMPTS) + 1
    assert lines[2].startswith("| text | floor 0 | -0.05 / 2.0 | 0.00 / 2.0 |")
    assert lines[-1].startswith("| absent | floor 0 | -40.0 |")
