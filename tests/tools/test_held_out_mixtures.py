"""A bench from validation recordings: only those, both sounds named apart, the same for a seed."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

from sam_audio_jax.data import likeness
from sam_audio_jax.data.source import embedded, load_manifest
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import load_bench, render
from tools import held_out_mixtures
from tools.fixed_mixtures import Composer

FOLDER = pathlib.Path(embedded()).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("bench") / "bench"
    held_out_mixtures.write([FOLDER], out, 3, 12)
    return out


def test_the_bench_holds_validation_recordings_by_their_paths(folder):
    bench = load_bench(folder)
    assert len(bench.mixtures) == 3 * len(held_out_mixtures.SETTINGS)
    held_out = {r.id for r in load_manifest(embedded()) if r.split == "valid"}
    for item in bench.mixtures:
        assert {event.clip for event in item.target + item.residual} <= held_out
    assert {path.name for path in folder.iterdir()} == {"manifest.jsonl", "mixtures.jsonl"}
    for item in bench.mixtures[::5]:
        render(bench, item)  # checks the listed peak


def test_prompts_are_true_of_the_target_alone_or_of_nothing(folder):
    known = {r.caption for r in load_manifest(embedded()) if r.split == "train"}
    for item in load_bench(folder).mixtures:
        for other in item.residual_captions:
            assert not likeness.may_be_same(item.caption, other)
            assert not likeness.Present([item.caption], [other]).may_include(item.absent)
        assert item.absent in known
        assert item.seen == (item.caption in known or item.caption == "music playing")
        assert item.alt_caption != item.caption
        assert item.other or item.setting in ("instr", "music")


def test_examples_are_other_recordings_of_the_same_caption(folder):
    bench = load_bench(folder)
    recordings = {one.path: one for one in load_manifest(folder / "manifest.jsonl")}
    found = 0
    for item in bench.mixtures:
        sides = [(item.example, item.target, (item.caption,))]
        sides.append((item.other_example, item.residual, item.residual_captions))
        for example, events, captions in sides:
            if example:
                found += 1
                assert recordings[example].caption in captions
                assert recordings[example].id not in {event.clip for event in events}
    assert found > len(bench.mixtures) / 2


def test_the_same_seed_gives_the_same_lines(folder, tmp_path):
    listed = [json.loads(line) for line in (folder / "mixtures.jsonl").open()]
    bench = held_out_mixtures.Bench([FOLDER], 12)
    assert bench.lines(3) == listed


def test_sources_that_make_no_list_are_refused(tmp_path):
    """The list would name clips by ids that several have, or mix clips of several rates."""
    for folder, rate in (("one", 16_000), ("other", 8_000)):
        (tmp_path / folder).mkdir()
        names = [f"{folder}-{split}" for split in ("train", "valid")]
        for name in names:
            soundfile.write(tmp_path / folder / f"{name}.wav", 0.1 * np.ones(rate), rate)
        fields = {"caption": "dog barking", "category": "sfx"}
        fields |= {"duration": 1.0, "license": "CC0-1.0"}
        lines = [
            fields | {"id": n, "source_id": n, "path": f"{n}.wav", "split": n.split("-")[1]}
            for n in names
        ]
        manifest = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / folder / "manifest.jsonl").write_text(manifest)
    with pytest.raises(UserError, match="several sources have the id one-train"):
        held_out_mixtures.write([tmp_path / "one"] * 2, tmp_path / "out", 1, 0)
    with pytest.raises(UserError, match=r"one-valid\.wav has 16000 Hz and .* has 8000 Hz"):
        held_out_mixtures.write([tmp_path / "one", tmp_path / "other"], tmp_path / "out", 1, 0)
    assert not (tmp_path / "out").exists()


def test_clips_of_cancelling_channels_are_laid_out_as_they_are_rendered(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal((16_000, 1))
    soundfile.write(tmp_path / "one.wav", noise * np.array([[1.0, -0.8]]), 16_000)
    fields = {"id": "one", "source_id": "one", "path": "one.wav", "split": "valid"}
    fields |= {"caption": "hiss", "category": "sfx", "duration": 1.0, "license": "CC0-1.0"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(fields) + "\n")
    make = Composer([tmp_path], known=())
    events = [("one", 0, 16_000, 0)]
    line = make.line("sfx", 0, "hiss", events, events)
    (tmp_path / "mixtures.jsonl").write_text(json.dumps(line) + "\n")
    bench = load_bench(tmp_path)
    render(bench, bench.mixtures[0])  # checks the listed peak
