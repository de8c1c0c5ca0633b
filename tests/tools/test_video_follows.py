"""What `follows` counts: stems of a model that obeys its mask, and of one that does not."""

import types
from typing import Any

import numpy as np
import pytest

from tests.tools import small_sources
from tools import video_follows, video_scenes


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    source = small_sources.write(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("scenes") / "scenes"
    video_scenes.main(["--source", str(source), "--out", str(out), "--count", "3"])
    return video_follows.load_clips(out)


class Model:
    """Separates nearly exactly what the mask or the text is of, or the other object."""

    def __init__(self, clips, *, obeys: bool):
        self.clips, self.obeys = clips, obeys

    def separate(self, mixtures, *, mask=None, text=None, unprompted, **others):
        assert unprompted == (mask is None and text is None)
        assert others["refine"] == "wiener"
        results = []
        for number, clip in enumerate(self.clips):
            np.testing.assert_array_equal(mixtures[number], clip.stems[0] + clip.stems[1])
            wave = 0.5 * clip.mixture
            which = None
            if mask is not None:
                which = clip.masks.index(mask[number])
                which = which if self.obeys else 1 - which
            elif text is not None:
                which = clip.captions.index(text[number])
            if which is not None:
                wave = clip.stems[which] + 0.1 * clip.stems[1 - which]
            results.append(types.SimpleNamespace(target=wave))
        return results


@pytest.mark.parametrize("obeys", [True, False])
def test_a_separation_follows_where_the_right_mask_is_better_than_the_wrong_one(clips, obeys):
    model: Any = Model(clips, obeys=obeys)
    found = video_follows.separate(model, clips)
    for clip, targets in zip(clips, found, strict=True):
        scores = video_follows.score(clip, targets)
        assert scores["follows"] == obeys
        assert scores["text follows"] == 1
        better, worse = ("right", "wrong") if obeys else ("wrong", "right")
        assert scores[better] == pytest.approx(20, abs=1)  # the two sounds have 0 dB in the mean
        assert scores[worse] == pytest.approx(-20, abs=1)
        assert scores["none"] == pytest.approx(0, abs=0.1)


def test_a_line_of_the_table_has_a_cell_for_each_column_with_its_interval(clips):
    model: Any = Model(clips, obeys=True)
    scores = video_follows.score(clips[0], video_follows.separate(model, clips)[0])
    line = video_follows.row("known", [scores, scores])
    assert line.startswith("| known (2) | ")
    assert line.endswith("| 100 % (100 % to 100 %) | 100 % (100 % to 100 %) |")
    names, rule = video_follows.header().splitlines()
    assert line.count("|") == names.count("|") == rule.count("|")
