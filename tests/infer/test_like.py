"""Prompts by example: what they change, what they equal, and who refuses them."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import soundfile

from sam_audio_jax import SAMAudio
from sam_audio_jax.cli import separate
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import evaluate_model
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.options import SeparateOptions
from tests import audio_text
from tests.eval.listing import make_folder, three_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "folder"
    return audio_text.write_model(path, audio_text.stored_tower())


@pytest.fixture(scope="module")
def model(folder):
    return SAMAudio.from_pretrained(folder)


@pytest.fixture(scope="module")
def sounds():
    """A recording and two examples, of the same length."""
    rng = np.random.default_rng(0)
    return [audio_text.tone(kind, rng) for kind in range(3)]


def differs(one, other) -> float:
    return float(np.abs(one.target - other.target).max())


def test_an_example_is_the_text_whose_vector_it_has(model, sounds):
    """One token and its end on both sides; the memory has no order."""
    options = SeparateOptions()
    item = model.item(sounds[0], "a", sample_rate=audio_text.RATE)
    own = dataclasses.replace(item, text="", like=audio_text.means()(["a"])[0])
    other = dataclasses.replace(own, like=-own.like)
    by_text, by_vector, by_other = (
        model.pipeline.separate_items([one], options)[0] for one in (item, own, other)
    )
    np.testing.assert_allclose(by_vector.target, by_text.target, atol=2e-5)
    assert differs(by_text, by_other) > 1e-4


def test_examples_change_the_result_alone_and_beside_a_text(model, sounds, tmp_path):
    rate = audio_text.RATE
    soundfile.write(tmp_path / "example.wav", sounds[1], rate, "FLOAT")
    likes = [tmp_path / "example.wav", tmp_path / "example.wav", None]
    texts = [None, "dog", "dog"]
    alone, both, text = model.separate([sounds[0]] * 3, texts, sample_rate=rate, like=likes)
    assert min(differs(alone, both), differs(both, text)) > 1e-4
    other = model.separate([sounds[0]] * 3, texts, sample_rate=rate, like=[sounds[2], None, None])
    assert differs(alone, other[0]) > 1e-4
    np.testing.assert_allclose(other[2].target, text.target, atol=2e-5)


def test_what_is_unusual_about_an_example_is_noted(folder, sounds, tmp_path, capsys):
    soundfile.write(tmp_path / "mix.wav", sounds[0], audio_text.RATE, "FLOAT")
    soundfile.write(tmp_path / "example.wav", sounds[1], audio_text.RATE, "FLOAT")
    example = tmp_path / "example.wav"
    example.write_bytes(example.read_bytes()[:-8_000])
    mix, checkpoint = str(tmp_path / "mix.wav"), ["--checkpoint", str(folder)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = [mix, "--like", str(example), *checkpoint, "--out", str(tmp_path / "one")]
        assert separate.main(one) == 0
    assert f"note: {example} has" in capsys.readouterr().err
    manifest, lines = tmp_path / "items.jsonl", []
    for name in ("a", "b"):
        lines.append(json.dumps({"id": name, "audio": "mix.wav", "like": "example.wav"}))
    manifest.write_text("\n".join(lines))
    many = tmp_path / "many"
    assert separate.main(["--manifest", str(manifest), *checkpoint, "--out", str(many)]) == 0
    for record in map(json.loads, (many / "done.jsonl").read_text().splitlines()):
        assert str(example) in record["notes"][0]


def test_windows_of_a_long_recording_read_the_example(folder, sounds):
    config = LongAudioConfig(window_s=0.2, overlap_s=0.08, one_shot_s=0.2)
    model = SAMAudio.from_pretrained(folder, long_audio=config)
    options = {"sample_rate": audio_text.RATE, "text": "dog"}
    by_text = model.separate(sounds[0], **options)
    by_both = model.separate(sounds[0], **options, like=sounds[1])
    assert differs(by_text, by_both) > 1e-4


def test_the_command_and_a_manifest_take_examples(folder, sounds, tmp_path, capsys):
    for number, wave in enumerate(sounds):
        soundfile.write(tmp_path / f"{number}.wav", wave, audio_text.RATE, "FLOAT")
    mix, like = (str(tmp_path / f"{number}.wav") for number in (0, 1))
    checkpoint = ["--checkpoint", str(folder)]
    one = [mix, "--like", like, *checkpoint, "--out", str(tmp_path / "one")]
    assert separate.main(one) == 0
    lines = [{"id": "a", "audio": "0.wav", "like": "1.wav"}, {"id": "b", "audio": "0.wav"}]
    lines[1] |= {"text": "dog", "like": "none.wav"}
    manifest = tmp_path / "items.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    many = ["--manifest", str(manifest), *checkpoint, "--out", str(tmp_path / "many")]
    assert separate.main(many) == 1
    assert "failed: b: " in capsys.readouterr().err
    single, several = (
        soundfile.read(tmp_path / name)[0] for name in ("one/target.wav", "many/a.target.wav")
    )
    np.testing.assert_allclose(single, several, atol=2e-4)


def test_a_model_without_a_tower_refuses_examples(folder, model, sounds, tmp_path):
    bare = SAMAudio.from_pretrained(audio_text.write_model(tmp_path / "bare"))
    with pytest.raises(UserError, match="has no audio tower: it cannot be prompted by an example"):
        bare.separate(sounds[0], sample_rate=audio_text.RATE, like=sounds[1])
    with pytest.raises(UserError, match="has no audio tower"):
        bare.audio_text_scorer()
    arguments = {"sample_rate": audio_text.RATE, "like": sounds[1]}
    with pytest.raises(UserError, match="an example prompts one sound"):
        model.separate(sounds[0], ["dog", "rain"], **arguments)
    with pytest.raises(UserError, match="the example of audio is silent"):
        model.separate(sounds[0], **arguments | {"like": np.zeros(400, np.float32)})
    scorer = model.audio_text_scorer()
    assert scorer.embedder.frames == audio_text.FRAMES


def test_an_evaluation_by_examples_asks_a_model_with_a_tower(model, tmp_path):
    lines = three_lines()
    lines[0] |= {"example": "beep", "other_example": "hiss"}
    make_folder(tmp_path / "bench", lines)
    quick = {"prompts": ["like", "text+like"], "listen": 0, "with_baselines": False}
    evaluate_model(model, tmp_path / "bench", tmp_path / "out", progress=False, **quick)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = {row["row"]: row for row in results["following"]}
    assert rows.keys() == {
        f"model/{refine}/{kind}" for refine in ("none", "wiener") for kind in quick["prompts"]
    }
    for row in rows.values():
        assert row["id"] == "a"
        assert row["sisdr_right"] != row["sisdr_wrong"]
    blind = SAMAudio.from_pretrained("tiny")
    blind.pipeline.like_vectors.tower = None
    with pytest.raises(UserError, match="has no audio tower"):
        evaluate_model(blind, tmp_path / "bench", tmp_path / "blind", **quick)
    assert not (tmp_path / "blind").exists()
