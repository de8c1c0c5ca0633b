"""The gain of a ranker on fixed mixtures: the share is 1 for the best choice, about 0 for noise."""

import json

import numpy as np
import pytest

from tools import candidate_choice
from tools.candidate_choice import Candidates, captured


def drawn(score, count=200):
    """Mixtures whose four candidates improve by random amounts, with scores by `score`."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        values = rng.normal(2, 1, 4)
        scores = tuple(score(values, rng))
        found.append(Candidates(str(number), "sfx", tuple(values), scores))
    return found


@pytest.mark.parametrize(
    ("score", "low", "high"),
    [
        (lambda values, rng: values, 1, 1),
        (lambda values, rng: rng.normal(size=4), -0.2, 0.2),
        (lambda values, rng: -values, -1.2, -0.8),
        (lambda values, rng: values + rng.normal(size=4), 0.5, 0.9),
    ],
)
def test_the_share_that_is_captured(score, low, high):
    share = captured(drawn(score))
    assert low <= round(share.mean, 6) <= high
    assert share.low <= share.mean <= share.high
    assert share.n == 200


def test_equal_candidates_have_no_gain_to_capture():
    assert captured([Candidates("a", "sfx", (1.0, 1.0), (0.0, 1.0))]) is None


def test_the_shipped_model_s_candidates_are_measured(tmp_path, capsys):
    out = tmp_path / "numbers.json"
    command = ["tiny", "--bench", "embedded", "--limit", "1", "--candidates", "2", "--batch", "1"]
    assert candidate_choice.main([*command, "--prompt", "text+span", "--out", str(out)]) == 0
    (one,) = json.loads(out.read_text())
    assert one["improvements"][0] != one["improvements"][1]
    (index,) = np.flatnonzero(np.array(one["scores"]) == max(one["scores"]))[:1]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"| all | 1 | {np.mean(one['improvements']):.2f} | ")
    assert f" | {one['improvements'][index]:.2f} | " in printed[-1]
