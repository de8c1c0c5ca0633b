"""The studies of the docs are drawn again from their tables, and are those of their recipes."""

import json
import pathlib
import shutil

import pytest

from sam_audio_jax import config
from sam_audio_jax.files import read_object
from sam_audio_jax.scaling.measured import StudyFolder
from sam_audio_jax.scaling.sizes import parameters, resized
from sam_audio_jax.scaling.study import StudyConfig
from sam_audio_jax.scaling.study_page import summary_lines
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.parametrisation import factors
from tools import draw_study

DOCS = pathlib.Path(__file__).parents[2] / "docs"
STUDIES = {
    "hour": DOCS / "scaling_study",
    "rates-mup": DOCS / "scaling_rates" / "mup",
    "rates-standard": DOCS / "scaling_rates" / "standard",
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_the_docs_is_drawn_again_from_its_table(name, tmp_path):
    folder = StudyFolder(tmp_path)
    for file in ("study.json", "table.json"):
        shutil.copy(STUDIES[name] / file, tmp_path)
    assert draw_study.main([str(tmp_path)]) == 0
    drawn, saved = (json.loads((p / "results.json").read_text()) for p in (tmp_path, STUDIES[name]))
    assert summary_lines(drawn) == summary_lines(saved)
    assert folder.report_file.read_text().count("<svg") == (
        STUDIES[name] / "report.html"
    ).read_text().count("<svg")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_the_docs_is_that_of_its_recipe(name):
    recipe = config.to_dict(config.from_cli([f"scaling_tiny@{name}"], StudyConfig))
    saved = config.to_dict(config.from_dict(StudyConfig, read_object(STUDIES[name] / "study.json")))
    for one in (saved, recipe):
        one["base"]["data"] |= {"cache": "", "source": ""}  # named by whoever runs a recipe
        one["base"].pop("eval_scores")  # which the runs of a study do not read
    assert recipe == saved


def test_the_study_for_a_pod_spans_two_decades_and_ends_with_the_published_small():
    study = config.from_cli(["scaling_pod"], StudyConfig)
    small = config.from_cli(["small"], TrainConfig)
    planned = [resized(study.base, width) for width in study.widths]
    sizes = [parameters(one.separator) for one in planned]
    assert sizes == sorted(sizes)
    assert sizes[-1] / sizes[0] > 100
    assert planned[-1].separator == small.separator
    assert (planned[-1].batch, planned[-1].data.mix) == (small.batch, small.data.mix)
    # The rate at the width of `small` is the published one.
    _, rate = factors("separator.dit.out.kernel", study.base.parametrisation, small.separator.dit)
    assert study.base.optim.peak_lr * rate == pytest.approx(small.optim.peak_lr)
    assert all(step % study.base.checkpoint.keep_every == 0 for step in study.steps)
    rates = config.from_cli(["scaling_pod@rates"], StudyConfig)
    assert min(rates.rates) < study.base.optim.peak_lr < max(rates.rates)
    assert study.base.parametrisation.base_width in rates.widths
