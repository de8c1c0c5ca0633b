import dataclasses

import numpy as np
import pytest
import soundfile

from sam_audio_jax.data import energy, text
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.pipeline import mixer
from sam_audio_jax.data.source import load_manifest
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_jsonl
from tests.data import toy


def config(world: str, **fields) -> DataConfig:
    return toy.config(world, **{"seconds": 3.0} | fields)


def draw(world: str, count: int = 40, **fields):
    mix = mixer(config(world, **fields), 8000, 320)
    return [mix.draw(np.random.default_rng((0, number))) for number in range(count)]


def test_the_mixture_is_the_sum_to_the_bit_and_does_not_clip(world):
    for mixture in draw(world):
        np.testing.assert_array_equal(mixture.mixture, mixture.target + mixture.residual)
        assert mixture.mixture.shape == (24000,)
        assert mixture.mixture.dtype == np.float32
        assert np.abs(mixture.mixture).max() <= 0.951
        assert energy.activity(mixture.target, 8000, 320).any()
        assert np.any(mixture.residual)


def test_texts_tell_target_and_residual_apart(world):
    seen = set()
    for mixture in draw(world, 80):
        seen.add(mixture.category)
        assert mixture.target_texts
        assert not set(mixture.target_texts) & set(mixture.residual_texts)
        if mixture.category == "speech/speech":
            assert all("klingon" in phrase for phrase in mixture.target_texts)
    assert {"sfx/sfx", "speech/speech", "stem/rest", "song/sfx", "speech/song"} <= seen


def test_levels_are_as_drawn(world):
    recipe = (("sfx", "instrument", 1.0),)
    mixtures = draw(world, 20, recipes=recipe, snr_db=(3.0, 3.0), level_db=(-30.0, -30.0))
    for mixture in mixtures:
        target, residual = (energy.active_rms(w, 8000) for w in (mixture.target, mixture.residual))
        assert 20 * np.log10(target) == pytest.approx(-30, abs=0.5)
        assert 20 * np.log10(target / residual) == pytest.approx(3.0, abs=0.5)


def test_layouts_leave_silence_or_go_on_to_the_end(world):
    recipe = (("sfx", "sfx", 1.0),)
    mixtures = draw(world, 20, recipes=recipe, target_repeats=0.0, residual_repeats=1.0)
    shares = [
        [energy.activity(w, 8000, 320).mean() for w in (mixture.target, mixture.residual)]
        for mixture in mixtures
    ]
    target, residual = np.mean(shares, axis=0)
    assert target < 0.75
    assert residual > 0.8


def test_the_stems_of_a_song_keep_their_levels(world):
    mixtures = draw(
        world,
        10,
        recipes=(("stem", "rest", 1.0),),
        stem_gain_db=(0.0, 0.0),
        speed_share=0.0,
    )
    for mixture in mixtures:
        ratio = energy.active_rms(mixture.target, 8000) / energy.active_rms(mixture.residual, 8000)
        assert 20 * np.log10(ratio) == pytest.approx(-3.0, abs=2.5)  # one of three equal stems
        assert mixture.residual_texts == ()


def test_recipes_without_material_are_left_out_and_none_left_is_an_error(world):
    mix = mixer(config(world), 8000, 320)
    assert ("song", "sfx") in mix.recipes
    mix.catalogue.songs = []
    mix._set_recipes()
    assert ("song", "sfx") not in mix.recipes
    with pytest.raises(UserError, match=r"data\.mix\.recipes has \('dogs', 'cats', 1\.0\)"):
        config(world, recipes=(("dogs", "cats", 1.0),))


def test_phrases_of_a_recording(world):
    speech = next(r for r in load_manifest(world) if r.category == "speech")
    assert text.texts_of(speech) == ("woman speaking klingon 0", "speech", "woman speaking")
    assert "person speaking" in text.claims_of(speech)
    stem = next(r for r in load_manifest(world) if r.stem)
    assert text.texts_of(stem) == ("drums playing", "drums")
    assert "music playing" in text.claims_of(stem)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_the_silent_part_of_a_recording_is_never_amplified(tmp_path, noise, streamed):
    """Recordings that are mostly padding: what is drawn sounds, as the tone that it is."""
    rng, lines = np.random.default_rng(0), []
    for number in range(3):
        wave = noise * rng.standard_normal(80_000)
        wave[:8_000] += 0.3 * np.sin(2 * np.pi * 250 * (number + 1) * np.arange(8_000) / 8_000)
        soundfile.write(tmp_path / f"{number}.wav", wave, 8_000, subtype="FLOAT")
        name = {"id": str(number), "path": f"{number}.wav", "caption": f"tone {number}"}
        lines.append(name | {"category": "sfx", "source_id": str(number), "duration": 10.0})
    write_jsonl(tmp_path / "manifest.jsonl", lines)
    recipe = {"recipes": (("sfx", "sfx", 1.0),), "speed_share": 0.0, "second_share": 0.0}
    cfg = config(str(tmp_path / "manifest.jsonl"), **recipe)
    cfg = dataclasses.replace(cfg, source=dataclasses.replace(cfg.source, streamed=streamed))
    mix = mixer(cfg, 8_000, 320)
    for number in range(20):
        mixture = mix.draw(np.random.default_rng(number))
        power = np.abs(np.fft.rfft(mixture.target)) ** 2
        flatness = np.exp(np.mean(np.log(power + 1e-12))) / power.mean()
        assert flatness < 0.1  # a tone, however it is cut, not noise


@pytest.mark.parametrize("recipe", [("stem", "sfx"), ("sfx", "stem"), ("speaker", "speech+sfx")])
def test_parts_of_a_piece_go_together(world, recipe):
    with pytest.raises(UserError, match="parts of one piece go together: stem with rest"):
        config(world, recipes=((*recipe, 1.0),))
    # Older configs may have switched it off.
    assert config(world, recipes=(("sfx", "sfx", 1.0), (*recipe, 0.0))).mix.recipes
