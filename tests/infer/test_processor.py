"""The reference's processor and batches, against its own and whole runs (fixtures `model/`)."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax import SAMAudio, SAMAudioProcessor, audio
from sam_audio_jax.convert.folder import load_folder
from sam_audio_jax.errors import UserError

WAVES = 1e-3  # promised; measured: 2e-6

# The clips of each run, of those that `fixture.json` lists, and which of their prompts it gets.
CLIPS = {"single": [0], "item2_alone": [2]}
WITHOUT_TEXT = ("none", "item2_alone")
WITH_ANCHORS = ("span", "all")
RUNS = ("text", "span", "video", "all", "none", "single", "item2_alone")


@pytest.fixture(scope="module")
def reference(fixtures_dir):
    return fixtures_dir.resolve() / "model"


@pytest.fixture(scope="module")
def facts(reference):
    return json.loads((reference / "fixture.json").read_text())


@pytest.fixture(scope="module")
def io(reference):
    return load_file(reference / "separate.safetensors")


@pytest.fixture(scope="module")
def cases(reference):
    return json.loads((reference / "processor.json").read_text())


@pytest.fixture(scope="module")
def tiny(reference, facts, tmp_path_factory):
    """The reference's weights in our public class; its tokenizer is a table."""
    folder = tmp_path_factory.mktemp("golden") / "model"
    folder.mkdir()
    for source in [*(reference / "checkpoint").iterdir(), reference / "t5"]:
        (folder / source.name).symlink_to(source)

    def tokenize(texts):
        rows = [facts["token_ids"][text] for text in texts]
        longest = max(map(len, rows))
        ids = np.array([row + [0] * (longest - len(row)) for row in rows], np.int32)
        return ids, np.array([[i < len(row) for i in range(longest)] for row in rows])

    return SAMAudio(*load_folder(folder)[:2], tokenize)


def make_batch(name, facts, io):
    """The batch of a run, and the rows of the noise and the messages."""
    listed = facts["separate"]
    processor = SAMAudioProcessor(
        audio_sampling_rate=listed["sample_rate"], audio_hop_length=listed["hop"]
    )
    clips = CLIPS.get(name, range(len(listed["sizes"])))
    batch = processor(
        descriptions=["" if name in WITHOUT_TEXT else listed["texts"][clip] for clip in clips],
        audios=[io[f"audio{clip}"] for clip in clips],
        anchors=[listed["anchors"][clip] for clip in clips] if name in WITH_ANCHORS else None,
    )
    features = list(io[f"{name}/video_features"].transpose(0, 2, 1))
    batch = dataclasses.replace(batch, video_features=features)
    frames = batch.audio_pad_mask.shape[1]
    noise = io["noise"][np.array(clips), :frames]
    return batch, noise, io["text/message"][: 2 * len(batch)]


@pytest.mark.golden
def test_sizes_masks_and_anchors_of_the_reference(cases):
    processor = SAMAudioProcessor(
        audio_sampling_rate=cases["sample_rate"], audio_hop_length=cases["hop"]
    )
    for case in cases["anchors"]:
        count = len(case["wav_sizes"])
        waves = [
            np.full((1, size), 0.1 + item, "f4") for item, size in enumerate(case["wav_sizes"])
        ]
        batch = processor([""] * count, waves, anchors=case["anchors"])
        assert batch.wav_sizes.tolist() == case["wav_sizes"]
        assert batch.sizes.tolist() == case["sizes"]
        np.testing.assert_array_equal(batch.audio_pad_mask, case["pad_mask"])
        np.testing.assert_array_equal(batch.anchor_ids, case["anchor_ids"])
        np.testing.assert_array_equal(batch.anchor_alignment, case["anchor_alignment"])
        assert batch.audios.shape == (count, 1, max(case["wav_sizes"]))
        for item, size in enumerate(case["wav_sizes"]):
            np.testing.assert_allclose(batch.audios[item, 0, :size], 0.1 + item, rtol=1e-6)
            assert not batch.audios[item, 0, size:].any()


@pytest.mark.golden
@pytest.mark.parametrize("name", RUNS)
def test_whole_runs_of_the_reference(tiny, facts, io, name):
    if f"{name}/ode_end" not in io:
        pytest.skip("not in these fixtures")
    batch, noise, message = make_batch(name, facts, io)
    for ours, theirs in (("audio_pad_mask",) * 2, ("anchor_ids",) * 2, ("anchor_alignment",) * 2):
        np.testing.assert_array_equal(getattr(batch, ours), io[f"{name}/{theirs}"])
    steps = len(facts["separate"]["call_times"]) // 2
    result = tiny.separate(
        batch,
        noise=noise,
        ode_opt={"method": "midpoint", "options": {"step_size": 1 / steps}},
        watermark=message,
    )
    np.testing.assert_array_equal(result.noise, noise)
    for item, size in enumerate(batch.sizes * facts["separate"]["hop"]):
        for stem in ("target", "residual"):
            got = getattr(result, stem)[item]
            assert len(got) == size
            want = io[f"{name}/{stem}{item}"]
            np.testing.assert_allclose(got, want, atol=WAVES, rtol=0)
            assert len(getattr(result.cut(), stem)[item]) == batch.wav_sizes[item]


@pytest.mark.golden
def test_waves_are_clean_without_the_option_of_a_watermark(tiny, facts, io):
    batch, noise, _ = make_batch("text", facts, io)
    clean = tiny.separate(batch, noise=noise)
    for item, wave in enumerate(clean.target):
        want = io["text/decoded_no_watermark"][item, 0, : len(wave)]
        np.testing.assert_allclose(wave, want, atol=WAVES, rtol=0)
    marked = tiny.separate(batch, noise=noise, watermark="random", seed=1)
    again = tiny.separate(batch, noise=noise, watermark="random", seed=1)
    other = tiny.separate(batch, noise=noise, watermark="random", seed=2)
    np.testing.assert_array_equal(marked.target[0], again.target[0])
    apart = [np.abs(marked.target[0] - one.target[0]).max() for one in (clean, other)]
    assert min(apart) > 1e-4
    with pytest.raises(UserError, match=r"watermark must be None, 'random' or \d+ bits .* \(3,\)"):
        tiny.separate(batch, noise=noise, watermark=[1, 0, 1])


def test_paths_are_resampled_to_the_models_rate(tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal((2, 4_000)).astype("f4")
    audio.write_wav(tmp_path / "street.wav", wave, 4_000)
    processor = SAMAudioProcessor(audio_sampling_rate=2_000, audio_hop_length=80)
    batch = processor(["dog", ""], [tmp_path / "street.wav", wave[:, :50]])
    assert batch.wav_sizes.tolist() == [2_000, 50]
    assert batch.anchors is None
    np.testing.assert_allclose(batch.audios[1, 0, :50], wave[:, :50].mean(0), atol=1e-7)
    assert [one.text for one in batch.prompt_views] == ["dog", ""]


def test_the_grid_is_that_of_the_model(folder):
    processor = SAMAudioProcessor.from_pretrained(folder)
    assert (processor.audio_sampling_rate, processor.audio_hop_length) == (8_000, 320)
    assert processor.wav_to_feature_idx(321) == 2
    assert processor.feature_to_wav_idx(2) == 640
    with pytest.raises(UserError, match="no checkpoint 'tinny'; shipped:"):
        SAMAudioProcessor.from_pretrained("tinny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"descriptions": ["a"]}, "1 descriptions with 2 audios"),
        ({"anchors": [[]]}, "2 descriptions with 1 anchors"),
        ({"masked_videos": []}, "2 descriptions with 0 masked_videos"),
        ({"descriptions": [], "audios": []}, "at least one item"),
        ({"descriptions": ["a", 3]}, "description 1 must be a string, not 3"),
        ({"anchors": [[], [("+", -0.5, 0.1)]]}, "at or after 0 s"),
        ({"anchors": [[], [("?", 0.5, 0.1)]]}, r"token '\?' of item 1 is unknown"),
        ({"audios": [np.ones(9, "f4"), "nowhere.wav"]}, "no sound file at nowhere.wav"),
        ({"audios": [np.ones(9, "f4"), np.ones(9, "i4")]}, "audio 1 must be a path or an array"),
    ],
)
def test_wrong_batches(arguments, message):
    good = {"descriptions": ["a", "b"], "audios": [np.ones(9, "f4")] * 2}
    with pytest.raises(UserError, match=message) as caught:
        SAMAudioProcessor()(**good | arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ["dog"]}, "a Batch holds its prompts"),
        ({"sample_rate": 8_000}, "sample_rate has no effect on a Batch"),
        ({"track": 1}, "track has no effect on a Batch"),
        ({"refine": "wiener"}, "refine needs the recordings themselves"),
        ({"noise": np.zeros((1, 4, 16), "f4")}, r"this batch needs floats of shape \(2, 4, 16\)"),
        ({"watermark": "random"}, "this model's codec has no watermark"),
        ({"ode_opt": {"method": "dopri5"}}, "method='dopri5' is unknown; allowed: midpoint"),
        ({"ode_opt": {"options": {"step_size": 0.3}}}, "step_size=0.3 must be 1 / a whole number"),
        ({"ode_opt": {"options": {"rtol": 0.3}}}, "allowed: 'step_size'"),
        ({"ode_opt": {"step_size": 0.5}}, "must be like"),
        ({"ode_opt": {"method": "euler"}, "ode": "heun"}, "two names of one thing"),
        ({"reranking_candidates": 0}, "candidates=0 must be a whole number from 1"),
        ({"reranking_candidates": 2}, "item 1 cannot be ranked: this model names no text ranker"),
    ],
)
def test_wrong_calls_with_a_batch(model, arguments, message):
    batch = SAMAudioProcessor(audio_sampling_rate=8_000, audio_hop_length=320)(
        ["dog", "cat"], [np.full(1_280, 0.1, "f4")] * 2, anchors=[[("+", 0, 0.1)], [("-", 0, 0.1)]]
    )
    with pytest.raises(UserError, match=message) as caught:
        model.separate(batch, **arguments)
    assert "\n" not in str(caught.value)


def test_a_batch_must_fit_the_model(model):
    coarse = SAMAudioProcessor(audio_sampling_rate=8_000, audio_hop_length=640)
    with pytest.raises(UserError, match="frames of 640 samples at 8000 Hz, the model of 320"):
        model.separate(coarse([""], [np.full(1_280, 0.1, "f4")]))
    processor = SAMAudioProcessor(audio_sampling_rate=8_000, audio_hop_length=320)
    with pytest.raises(UserError, match="the batch has 525 frames, at most 500 can be"):
        model.separate(processor([""], [np.full(168_000, 0.1, "f4")]))


def test_anchors_without_effect_are_named(noise_of):
    processor = SAMAudioProcessor(audio_sampling_rate=8_000, audio_hop_length=320)
    with pytest.warns(UserWarning, match=r"item 0: span \+ 0\.8-0\.2 s has no effect"):
        processor(["dog"], [noise_of(1.0)], anchors=[[("+", 0.8, 0.2)]])
    with pytest.warns(UserWarning, match=r"item 1: span \+ 50-60 s has no effect"):
        processor(["dog"] * 2, [noise_of(1.0)] * 2, anchors=[[("+", 0.2, 60)], [("+", 50, 60)]])
