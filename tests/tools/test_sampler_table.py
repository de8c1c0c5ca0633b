"""The table of samplers: every row has the evaluations that it states."""

from sam_audio_jax.separator.flow import SamplerConfig
from tools import sampler_table


def test_every_sampler_has_the_evaluations_of_its_row():
    *chosen, reference = sampler_table.samplers([1, 4])
    assert reference == sampler_table.REFERENCE
    assert len(set(chosen)) == len(chosen) == 3 * (3 + 5)  # a single one cannot be of midpoint
    scores = sampler_table.Measured(improvement=[1.0, 3.0], distance=[0.5, 0.25])
    lines = sampler_table.table({reference: scores} | dict.fromkeys(chosen, scores)).splitlines()
    assert len(lines) == 2 + 24 + 1
    assert lines[-1].startswith("| 128 | midpoint | uniform | 64 | 2.00 (1.00 to 3.00) | 0.3750")
    for line in lines[2:]:
        evaluations, method, grid, steps = (cell.strip() for cell in line.split("|")[1:5])
        sampler = SamplerConfig(method=method, grid=grid, steps=int(steps))
        assert sampler.evaluations == int(evaluations)
