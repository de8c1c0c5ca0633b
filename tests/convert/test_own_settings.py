"""What a model folder says beside its tensors: wrong values are refused, whole parts are copied."""

import json
import shutil

import pytest

from sam_audio_jax import SAMAudio
from sam_audio_jax.convert.folder import load_folder
from sam_audio_jax.errors import UserError

OURS = "sam_audio_jax.json"
JUDGE = {"kind": "judge", "checkpoint_or_model_id": "rankers/judge"}
CLAP = {"kind": "clap", "checkpoint": "clap.pt"}


@pytest.fixture
def source(reference, tmp_path):
    """A copy of the model, which a test may change."""
    return shutil.copytree(reference, tmp_path / "source")


def edit(path, **changes):
    values = json.loads(path.read_text()) if path.exists() else {"tokenizer": "byt5"}
    path.write_text(json.dumps(values | changes))


@pytest.mark.golden
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level_db": "loud"}, "level_db='loud' must be a finite number"),
        ({"level_db": float("nan")}, "level_db=nan must be a finite number"),
        ({"normalizes_text": "no"}, "normalizes_text='no' must be True or False"),
        ({"ignored_spans": 5}, "ignored_spans=5 must be a list, each one of +, -"),
        ({"vision": "big"}, "vision='big' must be an object"),
        ({"refine": {"exponent": -1}}, "refine.exponent=-1.0 must be a finite number above 0"),
        ({"refine": {"expo": 1}}, "unknown config key refine.expo"),
        ({"known": ["dog"]}, "known=['dog'] must be an object"),
        ({"known": {"texts": []}}, "known.texts is empty"),
    ],
)
def test_wrong_settings_are_neither_converted_nor_used(
    settings, message, command, source, tmp_path, capsys
):
    edit(source / OURS, **settings)
    assert command.main(["--from", str(source), "--to", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError) as caught:
        SAMAudio.from_pretrained(source)
    assert message in str(caught.value)


@pytest.mark.golden
def test_a_tokenizer_whose_files_are_gone_is_not_another_one(source):
    edit(source / OURS, tokenizer=None)
    with pytest.raises(UserError, match="t5 lacks the files of its tokenizer"):
        load_folder(source)


@pytest.mark.golden
def test_rankers_in_the_folder_are_copied(command, source, tmp_path):
    (source / "rankers" / "judge").mkdir(parents=True)
    (source / "rankers" / "judge" / "config.json").write_text("{}")
    (source / "clap.pt").write_text("weights")
    (tmp_path / "other").mkdir()  # not the model's own
    members = {"judge": [JUDGE, 1], "clap": [CLAP, 5]}
    ensemble = {"kind": "ensemble", "rankers": members}
    outer = {"kind": "imagebind", "checkpoint": "../other"}
    edit(source / "config.json", text_ranker=ensemble, visual_ranker=outer)
    assert command.main(["--from", str(source), "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "rankers" / "judge" / "config.json").read_text() == "{}"
    assert (tmp_path / "out" / "clap.pt").read_text() == "weights"
    assert not (tmp_path / "out" / "other").exists()
