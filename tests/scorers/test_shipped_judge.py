"""The judge that ships: what it is said to be, that texts matter to it, and that `tiny` uses it."""

import json
import shutil

import numpy as np
import pytest

from sam_audio_jax import SAMAudio
from sam_audio_jax.convert.folder import OURS
from sam_audio_jax.convert.judge import open_judge
from sam_audio_jax.convert.model_files import shipped_folder
from sam_audio_jax.convert.rankers import open_rankers, read_judge
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.eval.scoring import Measures
from sam_audio_jax.infer.rerank import Rankers
from sam_audio_jax.infer.scorer_files import load_scorers, own_scorers
from sam_audio_jax.scorers.scorer import PromptView, score_recordings

NAME = "judge-tiny"


@pytest.fixture(scope="module")
def judge():
    return read_judge(NAME)


def test_it_is_small_and_says_that_it_is_not_the_released_one(judge):
    folder = open_judge(NAME).folder
    assert sum(file.stat().st_size for file in folder.iterdir()) < 15e6
    card = (folder / "README.md").read_text()
    described = Measures({"judge": judge}, sources={"judge": NAME}).described()
    assert described["judge"].startswith("JudgeScorer of judge-tiny; trained on simulated ratings")
    for text in (described["judge"], card):
        assert "not the released" in text
    assert "/" not in json.loads((folder / "sam_audio_jax.json").read_text())["trained"]["table"]


def test_it_knows_which_of_two_sounds_a_text_names(judge):
    """Of held-out speech with music: each true stem fits its own text better than the other's."""
    bench = load_bench("embedded")
    items = [one for one in bench.mixtures if one.setting in ("speech", "music") and one.other]
    right = []
    for item in items[:2]:
        rendered = render(bench, item)
        stems = np.stack([rendered.target, rendered.residual])
        texts = [item.caption, item.other]
        scores = score_recordings(
            judge,
            [rendered.mixture] * 2,
            [stems] * 2,
            rendered.sample_rate,
            [PromptView(text=text) for text in texts],
        )["precision"]
        right += [scores[0, 0] > scores[1, 0], scores[1, 1] > scores[0, 1]]
    assert np.mean(right) >= 0.75


def test_capitals_and_a_full_stop_change_no_score(judge):
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    plain, written = (
        score_recordings(judge, [wave], [wave[None]], 16_000, [PromptView(text=text)])["overall"]
        for text in ("dog barking", "Dog barking.")
    )
    np.testing.assert_array_equal(plain, written)


def test_tiny_ranks_and_is_measured_by_it(monkeypatch):
    model = SAMAudio.from_pretrained("tiny")
    assert own_scorers(model.pipeline.rankers) == {"judge": NAME}
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    stems = model.separate(wave, "dog barking", sample_rate=16_000, candidates=2)
    assert stems.scores.shape == (2,)
    (judge,) = load_scorers({"judge": str(shipped_folder(NAME))}).values()
    assert judge is not model.pipeline.rankers.model.text.load()
    (judge,) = load_scorers({"judge": NAME}, rankers=model.pipeline.rankers).values()
    assert judge is model.pipeline.rankers.model.text.load()
    # Only what the package carries is a metric that nobody asked for.
    for config in ({}, {"text_ranker": {"kind": "judge", "checkpoint_or_model_id": "a/b"}}):
        assert own_scorers(Rankers(open_rankers(config))) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizes_text": "no"}, "normalizes_text='no' must be True or False"),
        ({"about": ["a judge"]}, "about=['a judge'] must be a text"),
        ({"mask_attention": "yes"}, "mask_attention='yes' must be True or False"),
    ],
)
def test_values_of_another_kind_in_its_folder_are_refused(changes, message, tmp_path):
    folder = shutil.copytree(shipped_folder(NAME), tmp_path / "judge")
    values = json.loads((folder / OURS).read_text())
    (folder / OURS).write_text(json.dumps(values | changes))
    with pytest.raises(UserError) as error:
        open_judge(folder)
    assert message in str(error.value)


def test_it_is_no_separator():
    with pytest.raises(UserError, match="no checkpoint 'judge-tiny'; shipped: tiny; else"):
        SAMAudio.from_pretrained(NAME)
