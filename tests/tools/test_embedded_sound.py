import json
import pathlib

from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.pipeline import mixer
from sam_audio_jax.data.source import embedded, load_manifest
from tools import embedded_sound, fixed_mixtures

FOLDER = pathlib.Path(embedded()).parent


def test_free_licences():
    assert embedded_sound.is_free("BSD-3-Clause (score), MIT (soundfont samples)")
    assert embedded_sound.is_free("CC-BY-SA-3.0")
    assert not embedded_sound.is_free("GPL-2.0-only (score), MIT (soundfont samples)")
    assert not embedded_sound.is_free("CC-BY-NC-4.0")
    assert not embedded_sound.is_free("unknown")
    assert all(embedded_sound.is_free(recording.license) for recording in load_manifest(embedded()))


def test_the_choice_is_free_balanced_and_keeps_songs_whole():
    def clip(number, split="train", licence="CC0-1.0", **more):
        line = {"id": f"{split}-{number}", "split": split, "license": licence, "category": "sfx"}
        line |= {"source_id": f"source {number}", "caption": f"thing {number % 3}"}
        return line | {"duration": 100.0} | more

    lines = [clip(number) for number in range(20)] + [clip(0, "valid"), clip(3, licence="GPL-2.0")]
    stems = [
        clip(100 + n, category="music", song=f"song {n // 2}", source_id=f"song {n // 2}")
        for n in range(6)
    ]
    chosen = embedded_sound.choose(lines + stems)
    train = [line for line in chosen if line["split"] == "train"]
    effects = [line for line in train if line["category"] == "sfx"]
    assert len(effects) == embedded_sound.SECONDS["sfx"] // 100
    assert "train-0" not in {line["id"] for line in chosen}  # shares its source with valid-0
    assert len({line["caption"] for line in effects}) == 3
    music = [line["song"] for line in train if line["category"] == "music"]
    assert len(music) == embedded_sound.SECONDS["music"] // 200 * 2
    assert all(music.count(song) == 2 for song in music)
    assert embedded_sound.choose((lines + stems)[::-1]) == chosen


def test_the_listed_mixtures_are_the_composers():
    listed = [json.loads(line) for line in (FOLDER / "mixtures.jsonl").open()]
    known = {recording.caption for recording in load_manifest(embedded())}
    composed = fixed_mixtures.mixtures(FOLDER, known)
    speech = [line for line in listed if line["setting"] in ("speaker", "music")]
    assert [line["id"] for line in speech] == [
        line["id"] for line in composed if line["setting"] in ("speaker", "music")
    ]
    assert len(listed) >= 30
    assert {line["setting"] for line in listed} == {"sfx", "speech", "speaker", "music", "instr"}
    valid = {r.id for r in load_manifest(embedded()) if r.split == "valid"}
    for line in listed + composed:
        events = line["target"] + line["residual"]
        assert {event["clip"] for event in events} <= valid
        assert all(e["offset"] + e["samples"] <= line["samples"] for e in events)
        assert 0.1 < line["mixture_peak"] <= 0.901
        assert line["caption"] not in line["residual_captions"]
        assert line["spans"]


def test_every_default_recipe_can_be_made_from_the_embedded_sound():
    assert len(mixer(DataConfig(), 8000, 320).recipes) == len(DataConfig().mix.recipes)
