"""SAMAudio on a tiny random model: forms of input, prompts, groups, seeds, refinement."""

import warnings

import numpy as np
import pytest

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.buckets import BucketConfig
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.separator import flow
from tests.audio.recordings import sound, with_tracks

RATE = 8_000
PROMPTS = {"text": "dog barking", "spans": [("+", 0.2, 0.6)]}


def same(left, right, atol=2e-5):
    for name in ("target", "residual"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), atol=atol)


def test_path_array_and_channels_are_one_recording(model, noise_of, tmp_path):
    wave = noise_of(1.01)
    audio.write_wav(tmp_path / "street.wav", np.stack([wave, wave]), RATE)
    stems = model.separate(tmp_path / "street.wav", **PROMPTS)
    assert stems.target.shape == stems.residual.shape == wave.shape
    assert stems.sample_rate == RATE
    assert np.std(stems.target - stems.residual) > 0
    same(stems, model.separate(str(tmp_path / "street.wav"), **PROMPTS))
    same(stems, model.separate(wave, sample_rate=RATE, **PROMPTS))
    same(stems, model.separate(np.stack([wave, wave]), sample_rate=RATE, **PROMPTS))


def test_what_is_unusual_about_files_is_a_warning(model, tmp_path):
    path = with_tracks(tmp_path / "a.mkv", [sound(0.4), sound(0.6, hz=700)])
    with pytest.warns(UserWarning, match="has 2 audio tracks"):
        first = model.separate(path, text="dog")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = model.separate(path, text="dog", track=2)
        both = model.separate([path, path], text=["dog", "dog"], track=[1, 2])
    seconds = [stems.target.shape[-1] / stems.sample_rate for stems in (first, second, *both)]
    np.testing.assert_allclose(seconds, [0.4, 0.6, 0.4, 0.6])
    for track, source in ((3, path), (0, path), (1, np.ones(800))):
        with pytest.raises(UserError, match="track"):
            model.separate(source, text="dog", track=track, sample_rate=RATE)


def test_a_rate_beside_a_file_is_the_files_own(model, tmp_path, noise_of):
    audio.write_wav(tmp_path / "a.wav", noise_of(1.01)[None], RATE)
    path = tmp_path / "a.wav"
    same(model.separate(path, "dog", sample_rate=RATE), model.separate(path, "dog"), atol=0)
    with pytest.raises(UserError, match="sample_rate=16000 is of an array, and audio is a file of"):
        model.separate(path, "dog", sample_rate=16_000)
    with pytest.raises(UserError, match="and item 0 is a file of 8000 Hz: leave it out"):
        model.separate([path, path], ["dog", "cat"], sample_rate=16_000, track=[None, 1])
    _, other = model.separate([path, np.repeat(noise_of(1.01), 2)], ["a", "b"], sample_rate=16_000)
    assert len(other.target) == round(1.01 * RATE)


def test_every_prompt_matters(model, noise_of):
    def target(**prompt):
        return model.separate(noise_of(1.01), sample_rate=RATE, **prompt).target

    targets = [
        target(unprompted=True),
        target(text="dog"),
        target(text="cat"),
        target(spans=[("+", 0.2, 0.6)]),
        target(spans=[("-", 0.2, 0.6)]),
        target(spans=[("+", 0.2, 0.6)], text="dog"),
    ]
    for number, one in enumerate(targets):
        for other in targets[number + 1 :]:
            assert np.abs(one - other).max() > 1e-4


def test_the_references_names_mean_the_same(model, noise_of):
    ours = model.separate([noise_of(1.01)], ["dog"], [[("+", 0.2, 0.6)]], sample_rate=RATE)
    theirs = model.separate(
        [noise_of(1.01)], descriptions=["dog"], anchors=[[("+", 0.2, 0.6)]], sample_rate=RATE
    )
    same(ours[0], theirs[0], atol=0)


def test_options_are_an_object_or_arguments(model, noise_of):
    wave, options = noise_of(1.01), SeparateOptions(seed=3, steps=1)
    stems = model.separate(wave, "dog", sample_rate=RATE, options=options)
    same(stems, model.separate(wave, "dog", sample_rate=RATE, seed=3, steps=1), atol=0)
    replaced = model.separate(wave, "dog", sample_rate=RATE, options=options, seed=4)
    same(replaced, model.separate(wave, "dog", sample_rate=RATE, seed=4, steps=1), atol=0)
    assert SeparateOptions(**options.to_dict()) == options
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        model.separate(wave, sample_rate=RATE, step=1)


def test_an_item_does_not_depend_on_the_others_of_its_call(model, noise_of):
    waves = [noise_of(1.01, seed) for seed in range(3)]
    texts = ["dog", None, "a longer text"]
    spans = [None, [("+", 0.0, 0.5)], [("-", 0.0, 0.5), ("+", 0.5, 1.0)]]
    together = model.separate(waves, texts, spans, sample_rate=RATE)
    assert [len(stems.target) for stems in together] == [len(wave) for wave in waves]
    for stems, wave, text, row in zip(together, waves, texts, spans, strict=True):
        same(stems, model.separate(wave, text, row, sample_rate=RATE))


def test_many_lengths_compile_few_times(folder, noise_of, monkeypatch):
    traces, sample = [], flow.sample

    def counted(velocity, noise, sampler):
        traces.append(noise.shape)
        return sample(velocity, noise, sampler)

    monkeypatch.setattr(flow, "sample", counted)
    buckets = BucketConfig(exact=2, sizes=(16, 32), batch=2)
    model = SAMAudio.from_pretrained(folder, buckets=buckets)
    waves = [noise_of(0.35 + 0.05 * number) for number in range(12)]
    for _ in range(2):
        stems = model.separate(waves, ["x"] * 12, sample_rate=RATE)
    assert [len(one.target) for one in stems] == [len(wave) for wave in waves]
    assert sorted(traces) == [(2, 16, 16), (2, 32, 16)]


def test_seed_and_noise(model, noise_of):
    wave = noise_of(1.01)
    stems = model.separate(wave, "dog", sample_rate=RATE, seed=3)
    same(stems, model.separate(wave, "dog", sample_rate=RATE, seed=3), atol=0)
    other = model.separate(wave, "dog", sample_rate=RATE, seed=4)
    assert np.abs(stems.target - other.target).max() > 1e-3
    noise = inputs.draw_noise(3, 26, 16)
    same(stems, model.separate(wave, "dog", sample_rate=RATE, noise=noise), atol=0)
    with pytest.raises(UserError, match=r"shape \(25, 16\); this recording needs .* \(26, 16\)"):
        model.separate(wave, "dog", sample_rate=RATE, noise=noise[:25])


def test_solver_options(model, noise_of):
    wave = noise_of(1.01)
    assert (model.sampler.method, model.sampler.steps) == ("euler", 2)
    two = model.separate(wave, "dog", sample_rate=RATE)
    assert two.target.flags.writeable
    same(two, model.separate(wave, "dog", sample_rate=RATE, method="euler", steps=2), atol=0)
    midpoint = model.separate(wave, "dog", sample_rate=RATE, method="midpoint", steps=2)
    assert np.abs(two.target - midpoint.target).max() > 1e-5
    for wrong, message in (({"method": "rk4"}, "allowed: midpoint"), ({"steps": 0}, "from 1 to")):
        with pytest.raises(UserError, match=message):
            model.separate(wave, "dog", sample_rate=RATE, **wrong)


@pytest.mark.parametrize("channels", [None, 1, 2])
def test_refined_stems_are_the_recording(model, channels, noise_of):
    wave = noise_of(2.02, channels=channels)
    stems = model.separate(wave, "dog", sample_rate=16_000, refine="wiener")
    assert stems.sample_rate == 16_000
    assert stems.target.shape == wave.shape
    np.testing.assert_array_equal(stems.target + stems.residual, wave)
    assert 0 < np.std(stems.target) < np.std(wave)


def test_very_short_recordings(model, noise_of):
    stems = model.separate(noise_of(0.001), "dog", sample_rate=RATE)
    assert stems.target.shape == (8,)
    assert np.isfinite(stems.target).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio": [np.ones(9, "f4")], "text": "dog"}, "text needs one value for each of 1"),
        ({"audio": [np.ones(9, "f4")], "spans": [[], []]}, "spans needs .* got 2 values"),
        ({"audio": [0.0 * np.ones(9, "f4")]}, "item 0 is silent"),
        ({"text": "dog", "descriptions": "dog"}, "two names of one thing"),
        ({"refine": "mask"}, "allowed: 'wiener'"),
        ({"spans": [("+", 0.5, 9)]}, "within the audio"),
        ({"audio": "nowhere.wav"}, "no sound file at nowhere.wav"),
    ],
)
def test_wrong_calls(model, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        model.separate(**{"audio": np.ones(8_000, "f4"), "sample_rate": RATE} | arguments)
    assert "\n" not in str(caught.value)


def test_unknown_checkpoints_name_the_shipped_ones():
    with pytest.raises(UserError, match=r"no checkpoint 'tinny'; shipped: .*; else give"):
        SAMAudio.from_pretrained("tinny")
    with pytest.raises(UserError, match="/nowhere/at/all"):
        SAMAudio.from_pretrained("/nowhere/at/all")
