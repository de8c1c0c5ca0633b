"""Recordings of every bad kind: each is counted under its reason, and none stops a stream."""

import collections
import contextlib
import dataclasses
import json
import struct

import numpy as np
import pytest
import soundfile

from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.library import open_library
from sam_audio_jax.data.source import read_source
from sam_audio_jax.errors import UnusableError, UserError
from sam_audio_jax.files import read_json, write_jsonl
from tests.data import toy

RATE = 8000


def sound(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(rate + channels)
    return 0.1 * rng.normal(size=(max(1, int(seconds * rate)), channels))


def silent_video(path) -> None:
    """A video of two pictures without a sound track."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 16
        for _ in range(2):
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def truncated(path) -> None:
    soundfile.write(path, sound(2.0), RATE)
    path.write_bytes(path.read_bytes()[:9_000])


def wrong_header(path) -> None:
    soundfile.write(path, sound(1.0), RATE)
    path.write_bytes(b"RIFX" + bytes(40) + path.read_bytes()[44:])


def not_finite(path) -> None:
    wave = sound(1.0)
    wave[100] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")


# File -> (how it is written, reason under which it is counted; "" is none).
FILES = {
    "truncated.flac": (truncated, "truncated"),
    "header.wav": (wrong_header, "cannot be decoded"),
    "empty.wav": (lambda path: soundfile.write(path, np.zeros((0, 1)), RATE), "no samples"),
    "no bytes.ogg": (lambda path: path.write_bytes(b""), "cannot be decoded"),
    "nan.wav": (not_finite, "not finite"),
    "zeros.wav": (lambda path: soundfile.write(path, np.zeros(RATE), RATE), "silent"),
    "video.mp4": (silent_video, "no sound"),
    "1 kHz.wav": (lambda path: soundfile.write(path, sound(1.0, 1_000), 1_000), ""),
    "192 kHz.flac": (lambda path: soundfile.write(path, sound(1.0, 192_000), 192_000), ""),
    "eight.wav": (lambda path: soundfile.write(path, sound(1.0, channels=8), RATE), ""),
    "odd: näme %s {} ,\t.wav": (lambda path: soundfile.write(path, sound(1.0), RATE), ""),
}
# What is wrong with a line -> reason.
LINES = (
    ({"caption": None}, "no caption"),
    ({"caption": " . "}, "no caption"),
    ({"caption": "dog barking " * 417}, "long caption"),
    ({"spans": [[0.9, 0.2]]}, "spans"),
    ({"spans": [[0.5, 0.9], [0.1, 0.2]]}, ""),
    ({"path": "gone.wav"}, "no file"),
    ({"duration": -1}, "malformed line"),
    ({"category": "noise"}, "malformed line"),
    ({"id": "0"}, "id used twice"),
)


@pytest.fixture
def fuzzed(tmp_path) -> tuple[str, collections.Counter]:
    """A manifest with everything that is bad, and what it should be counted under."""
    expected = collections.Counter()
    lines = []
    for number, (name, (write, reason)) in enumerate(FILES.items()):
        write(tmp_path / name)
        lines.append({"path": name, "id": str(number)})
        expected[reason] += 1
    for change, reason in LINES:
        lines.append({"path": "eight.wav", "id": f"line {len(lines)}"} | change)
        expected[reason] += 1
    common = {"category": "sfx", "duration": 1.0}
    rows = [
        json.dumps(common | {"caption": f"thing {n} humming", "source_id": f"source {n}"} | line)
        for n, line in enumerate(lines)
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join([*rows, "{broken", "[1]"]))
    expected["malformed line"] += 2
    del expected[""]
    return str(path), expected


def test_bad_recordings_are_counted_by_reason_and_the_stream_goes_on(fuzzed, caplog):
    manifest, expected = fuzzed
    cfg = toy.config(manifest, recipes=(("sfx", "sfx", 1.0),), seconds=1.0)
    batches = toy.take(toy.separation(cfg, 8), 4)
    for batch in batches:
        assert all(np.isfinite(batch[name]).all() for name in ("mixture", "target", "residual"))
    summary = next(line for line in caplog.messages if "are left out: " in line)
    counted = dict(part.split(" ", 1)[::-1] for part in summary.split(": ", 1)[1].split(", "))
    assert {reason: int(count) for reason, count in counted.items()} == expected
    for name, (_, reason) in FILES.items():
        assert bool(reason) == any(name in line and "skipped" in line for line in caplog.messages)


def test_a_streamed_source_counts_them_where_they_are_read(fuzzed):
    manifest, expected = fuzzed
    source = dataclasses.replace(toy.config(manifest).source, streamed=True)
    library = open_library(source, RATE)
    counts = collections.Counter(
        {
            reason: count
            for reason, (count, _) in read_json(f"{library.table.folder}/index.json")[
                "refused"
            ].items()
        }
    )
    for number in range(len(library.table.recordings)):
        with contextlib.suppress(UnusableError):
            wave = library.waves.read(number)
            assert len(wave) == RATE
            assert np.isfinite(wave).all()
    counts.update(line["reason"] for line in library.waves.found_before())
    assert counts == expected


def test_of_a_recording_of_three_hours_only_what_is_needed_is_decoded(tmp_path):
    """The file is sparse: silent and without blocks on the disk, but for a second after 2 hours."""
    samples = 3 * 3_600 * RATE
    form = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + 2 * samples, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16),
        *(b"data", 2 * samples),
    )
    wave = (3_000 * np.sin(np.arange(RATE))).astype(np.int16)
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(form)
        file.seek(44 + 2 * 2 * 3_600 * RATE)
        file.write(wave.tobytes())
        file.truncate(44 + 2 * samples)
    line = {"path": "long.wav", "caption": "bell ringing", "category": "sfx", "source_id": "bell"}
    write_jsonl(tmp_path / "manifest.jsonl", [line | {"duration": 10_800}])
    source = SourceConfig(manifests=(str(tmp_path / "manifest.jsonl"),), streamed=True)
    waves = open_library(source, RATE).waves
    assert waves.length(0) == samples
    np.testing.assert_allclose(waves.read(0, 7_200 * RATE, RATE), wave / 2**15, atol=1e-6)
    with pytest.raises(UnusableError, match=r"from 600\.00 s: silent"):
        waves.read(0, 600 * RATE, RATE)


def test_the_limit_of_the_config_ends_the_run(fuzzed):
    manifest, _ = fuzzed
    cfg = toy.config(manifest)
    source = {"manifests": (manifest,), "most_bad": 0.3}
    cfg = toy.replaced(cfg, source=type(cfg.source)(**source))
    with pytest.raises(UserError, match=r"data\.source\.most_bad=0\.3 allows 30"):
        pipeline.mixer(cfg, toy.RATE, toy.HOP)


def test_lines_that_cannot_be_used_are_refused_and_not_more(fuzzed):
    manifest, expected = fuzzed
    recordings, _, refusals = read_source(toy.config(manifest).source)
    assert len(recordings) == len(FILES) + 1
    assert refusals.counts["malformed line"] == expected["malformed line"]
    assert [r.spans for r in recordings if r.spans] == [((0.1, 0.2), (0.5, 0.9))]
