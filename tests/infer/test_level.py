"""Neither gain nor offset nor the signs of channels change what is separated."""

import numpy as np
import pytest

from sam_audio_jax import SAMAudio, SAMAudioProcessor
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.stream import stream
from sam_audio_jax.scorers.scorer import PromptView, score_recordings

RATE = 8_000
SPANS = [("+", 0.5, 1.5)]


@pytest.fixture(autouse=True)
def levelled(model, monkeypatch):
    monkeypatch.setattr(model.pipeline, "level_db", -30.0)


def agreement_db(one, other):
    one, other = np.ravel(one), np.ravel(other)
    return 10 * np.log10(np.sum(other**2) / max(np.sum((one - other) ** 2), 1e-30))


@pytest.mark.parametrize("refine", [None, "wiener"])
@pytest.mark.parametrize("gain", [-75.0, -60.0, 12.0, 30.0])
def test_a_gain_comes_out_as_it_went_in(model, noise_of, refine, gain):
    wave, factor = noise_of(2.0), np.float32(10 ** (gain / 20))
    options = {"text": "dog", "spans": SPANS, "sample_rate": RATE, "refine": refine}
    stems, other = model.separate(wave, **options), model.separate(factor * wave, **options)
    for name in ("target", "residual"):
        assert agreement_db(getattr(other, name) / factor, getattr(stems, name)) > 60


def test_an_offset_is_in_the_residual(model, noise_of):
    wave = noise_of(2.0)
    options = {"text": "dog", "sample_rate": RATE, "refine": "wiener"}
    stems = model.separate(np.stack([wave, wave]), **options)
    offset = np.array([[0.3], [-0.2]], np.float32)
    other = model.separate(np.stack([wave, wave]) + offset, **options)
    assert agreement_db(other.target, stems.target) > 20
    np.testing.assert_allclose(other.target + other.residual, wave + offset, atol=1e-6)
    assert abs(np.mean(other.target)) < 1e-3


def test_stems_of_opposite_channels_have_opposite_signs(model, noise_of):
    wave = noise_of(2.0)
    options = {"text": "dog", "sample_rate": RATE}
    plain = model.separate(np.stack([wave, wave]), **options)
    with pytest.warns(UserWarning, match=r"0.50 x channel 1 - 0.50 x channel 2"):
        raw = model.separate(np.stack([wave, -wave]), **options)
    np.testing.assert_array_equal(raw.target, plain.target)
    plain = model.separate(np.stack([wave, 0.5 * wave]), refine="wiener", **options)
    with pytest.warns(UserWarning, match="cancel"):
        refined = model.separate(np.stack([wave, -0.5 * wave]), refine="wiener", **options)
    np.testing.assert_allclose(refined.target[0], plain.target[0], atol=1e-4)
    np.testing.assert_allclose(refined.target[1], -plain.target[1], atol=1e-4)


def test_a_batch_of_the_processor_is_levelled_item_by_item(model, noise_of):
    processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=320)
    waves = [noise_of(1.0), 1e-3 * noise_of(2.0)]
    loud = processor(["dog", "cat"], [waves[0], 1e3 * waves[1]])
    quiet = processor(["dog", "cat"], waves)
    stems, other = model.separate(loud), model.separate(quiet)
    assert agreement_db(other.target[0], stems.target[0]) > 60
    assert agreement_db(1e3 * other.target[1], stems.target[1]) > 60


class Nearest:
    """Prefers the target whose level, relative to full scale, is nearest to a wanted one."""

    needs, axes = "text", ("nearness",)

    def __init__(self, wanted_db):
        self.wanted_db, self.calls = wanted_db, []

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        self.calls.append((mixtures, candidates, lengths))
        levels = [
            [level_dbfs(wave[:length]) for wave in waves]
            for waves, length in zip(candidates, lengths, strict=True)
        ]
        return {"nearness": -np.abs(np.array(levels) - self.wanted_db)}


def level_dbfs(wave):
    return 10 * np.log10(np.mean(np.square(wave, dtype=np.float64)))


@pytest.mark.parametrize("form", ["item", "long", "texts", "batch"])
def test_candidates_are_ranked_at_the_level_of_the_recording(model, noise_of, form, monkeypatch):
    """As `tools.candidate_choice`, which scores what comes out, for each candidate that is best."""
    wave = 0.03 * noise_of(2.0) + np.float32(0 if form == "batch" else 0.01)
    draws = np.random.default_rng(7).standard_normal((3, 50, 16)).astype("f4")
    arguments = [wave, ["dog", "cat"] if form == "texts" else "dog"]
    options = {"sample_rate": RATE}
    if form == "long":
        windows = LongAudioConfig(window_s=1.0, overlap_s=0.25, one_shot_s=1.0)
        monkeypatch.setattr(model.pipeline.long_audio, "config", windows)
    if form == "batch":
        processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=320)
        arguments, options = [processor(["dog"], [wave])], {}

    def separate(noise, **more):
        out = model.separate(*arguments, noise=noise, **options, **more)
        if form == "texts":
            out = out["dog"]
        return (out.target[0] if form == "batch" else out.target), out.scores

    alone = np.stack([separate(one[None] if form == "batch" else one)[0] for one in draws])
    levels = [level_dbfs(one) for one in alone]
    assert min(np.diff(sorted(levels))) > 1e-3
    for index, wanted in enumerate(levels):
        scorer = Nearest(wanted)
        target, scores = separate(draws, candidates=3, scorer=scorer)
        np.testing.assert_allclose(target, alone[index], atol=2e-5)
        measured = score_recordings(scorer, [wave], [alone], RATE, [PromptView(text="dog")])
        np.testing.assert_allclose(np.ravel(scores), measured["nearness"][0], atol=1e-3)
        assert np.argmax(scores) == np.argmax(measured["nearness"][0]) == index
        mixtures, _, (length, *_) = scorer.calls[0]
        np.testing.assert_allclose(mixtures[0][:length], wave, atol=1e-7)


def run_stream(model, wave, size=1_700, **options):
    blocks = (wave[..., i : i + size] for i in range(0, wave.shape[-1], size))
    pieces = list(stream(model, blocks, RATE, window_s=2.0, overlap_s=0.5, text="dog", **options))
    return tuple(
        np.concatenate([getattr(piece, name) for piece in pieces], axis=-1)
        for name in ("target", "residual")
    )


@pytest.mark.parametrize("refine", [None, "wiener"])
def test_a_short_stream_is_levelled_as_a_recording(model, noise_of, refine):
    wave = 1e-3 * noise_of(1.9) + np.float32(0.01)
    stems = model.separate(wave, "dog", sample_rate=RATE, refine=refine)
    target, residual = run_stream(model, wave, refine=refine)
    np.testing.assert_allclose(target, stems.target, atol=1e-7)
    np.testing.assert_allclose(residual, stems.residual, atol=1e-7)


def test_a_stream_follows_its_level_and_comes_back_at_it(model, noise_of):
    wave = noise_of(9.0)
    wave[: 4 * RATE] *= 1e-3  # quiet first, then much louder
    target, residual = run_stream(model, wave)
    quieter = run_stream(model, 1e-2 * wave)
    assert agreement_db(100 * quieter[0], target) > 50
    for stem in (target, residual):
        assert np.std(stem[6 * RATE :]) > 30 * np.std(stem[: 3 * RATE])
    refined = run_stream(model, wave + np.float32(0.3), refine="wiener")
    np.testing.assert_allclose(sum(refined), wave + np.float32(0.3), atol=1e-6)
    assert abs(np.mean(refined[0])) < 1e-2


def test_the_offset_of_a_stream_does_not_follow_from_the_size_of_its_blocks(model, noise_of):
    wave = 0.2 * noise_of(9.0)
    wave[: 4 * RATE] += np.float32(0.1)  # later samples would say less of it
    in_blocks = run_stream(model, wave, refine="wiener")
    for size in (500, len(wave)):
        np.testing.assert_array_equal(run_stream(model, wave, size, refine="wiener"), in_blocks)


def test_a_stream_whose_channels_cancel_later_is_not_silent(model, noise_of):
    wave = noise_of(8.0)
    channels = np.stack([wave, np.where(np.arange(len(wave)) < 4 * RATE, wave, -wave)])
    with pytest.warns(UserWarning, match="of the stream cancel"):
        stems = run_stream(model, channels)
    early, late = (np.std(sum(stems)[part]) for part in (slice(0, 3 * RATE), slice(5 * RATE, None)))
    assert late > 0.5 * early


def test_an_offset_alone_is_silence(model):
    with pytest.raises(UserError, match="street is silent: there is nothing but an offset"):
        model.item(np.full(RATE, 0.3, np.float32), "dog", sample_rate=RATE, name="street")


def test_the_shipped_model_is_the_same_at_every_level():
    model = SAMAudio.from_pretrained("tiny")
    rate, rng = model.sample_rate, np.random.default_rng(0)
    wave = 0.1 * rng.standard_normal(2 * rate).astype(np.float32)
    wave[rate:] *= np.sin(np.arange(rate) / 20)
    options = {"text": "dog", "sample_rate": rate, "refine": "wiener"}
    stems = model.separate(wave, **options)
    for gain in (1e-3, 4.0):
        other = model.separate(np.float32(gain) * wave, **options)
        assert agreement_db(other.target / gain, stems.target) > 30
