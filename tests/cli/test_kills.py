"""Commands that are killed at random moments leave what an undisturbed run leaves."""

import pytest

from tests.cli import kills

pytestmark = [pytest.mark.processes, pytest.mark.long]


@pytest.mark.parametrize(
    "name", ["train", "separate", "evaluate", "prepare", "prepare-videos", "label"]
)
def test_25_kills_change_nothing(name, tmp_path):
    """Takes many minutes: each command starts about forty times, once or twice at a time."""
    kills.make_inputs(tmp_path / "inputs")
    (victim,) = [one for one in kills.victims(tmp_path / "inputs") if one.name == name]
    assert list(kills.campaign(victim, 25, 0, tmp_path))
