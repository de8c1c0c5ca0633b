"""Recordings with captions, good and bad, a tiny model in a folder, and what labels them."""

import json
import pathlib

import numpy as np
import pytest

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.label.group_labels import GroupLabeller
from sam_audio_jax.label.label_inputs import read_inputs
from sam_audio_jax.label.label_settings import LabelSettings
from sam_audio_jax.label.labelling import label, make_plan
from sam_audio_jax.label.network_scores import LabelNetworks
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from tests import tiny

RATE = 8_000
SETTINGS = LabelSettings(scores=("silence", "remix", "absent"), longest_s=2.0, per_shard=3)
CAPTIONS = ("dog barking", "rain", "violin")


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
    """A checkpoint folder of a tiny model with weights of no training."""
    prompted = tiny.filled(lambda: PromptedSeparator(tiny.TEXT, tiny.SEPARATOR, rngs=Rngs(0)))
    codec = tiny.filled(lambda: Codec(tiny.CODEC, rngs=Rngs(0)))
    codec.decoder.out.scale[...] *= 0.1  # waves well below full scale
    path = tmp_path_factory.mktemp("checkpoint") / "folder"
    save_folder(path, codec, prompted, "byt5", {"sampler": {"method": "euler", "steps": 1}})
    return path


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> pathlib.Path:
    """A manifest of nine lines, three a shard: six recordings, of which one is alone in its shard
    and one too long, no recording, no JSON, and no caption."""
    path = tmp_path_factory.mktemp("recordings")
    lines = []
    for number in range(6):
        seconds = 2.5 if number == 5 else 0.5
        wave = 0.1 * np.random.default_rng(number).standard_normal(round(seconds * RATE))
        audio.write_wav(path / f"{number}.wav", wave[None], RATE)
        name = {"id": f"item{number}", "path": f"{number}.wav"}
        lines.append(json.dumps(name | {"caption": CAPTIONS[number % 3]}))
    (path / "broken.wav").write_bytes(b"RIFF no sound")
    lines.insert(1, json.dumps({"id": "broken", "path": "broken.wav", "caption": "rain"}))
    lines.insert(4, "{no JSON")
    lines.append(json.dumps({"id": "unnamed", "path": "0.wav"}))
    (path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return path / "manifest.jsonl"


@pytest.fixture(scope="session")
def labeller(folder) -> GroupLabeller:
    return GroupLabeller(SAMAudio.from_pretrained(folder), SETTINGS, LabelNetworks(), str(folder))


@pytest.fixture(scope="session")
def run(labeller, recordings):
    """Labels the manifest into a folder, as one of some processes; returns whether it is done."""
    manifest = read_inputs(recordings)
    plan = make_plan(labeller, manifest)

    def start(out: pathlib.Path, rank=None) -> bool:
        return label(labeller, manifest, out, plan, rank)

    return start


@pytest.fixture(scope="session")
def whole(run, tmp_path_factory) -> pathlib.Path:
    """The labels of one process that nothing interrupts; tests only read them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(out)
    return out
