"""Several texts of one recording: encoded once, divided exactly, in files that nothing mixes up."""

import dataclasses
import functools
import json
import re

import numpy as np
import pytest

from sam_audio_jax import audio, stream
from sam_audio_jax.cli import separate as command
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.batch.run import Settings, run
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.manifest import read_manifest
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.output import file_names
from sam_audio_jax.infer.refine import RefineConfig, divide_among, wiener
from sam_audio_jax.infer.solve import encode_mixture

RATE = 8_000
TEXTS = ["dog", "rain"]
SPANS = [[("+", 0.1, 0.3)], None]


@pytest.fixture
def recording(noise_of):
    """Two channels at a rate that is not the codec's."""
    return noise_of(0.5 * 11_025 / RATE, channels=2)


def test_texts_share_a_recording_that_is_encoded_once(model, noise_of, monkeypatch):
    wave = noise_of(0.5)
    programs, on_batch = [], model.pipeline.compiled.on_batch

    def recorded(program, *arrays, **static):
        programs.append((program, len(jax_rows(arrays))))
        return on_batch(program, *arrays, **static)

    with monkeypatch.context() as patch:
        patch.setattr(model.pipeline.compiled, "on_batch", recorded)
        together = model.separate(wave, TEXTS, SPANS, sample_rate=RATE)
    assert [(program is encode_mixture, rows) for program, rows in programs] == [
        (True, 1),
        (False, 2),
    ]
    assert list(together) == TEXTS
    assert together.rest is None
    for text, spans in zip(TEXTS, SPANS, strict=True):
        alone = model.separate(wave, text, spans, sample_rate=RATE)
        np.testing.assert_allclose(together[text].target, alone.target, atol=2e-5)
        np.testing.assert_allclose(together[text].residual, alone.residual, atol=2e-5)
    assert np.abs(together["dog"].target - together["rain"].target).max() > 1e-3


def jax_rows(arrays):
    (first, *_) = arrays
    return getattr(first, "text_ids", first)


@pytest.mark.parametrize("rest", [False, True])
def test_joint_stems_and_the_rest_add_up_to_the_recording(model, recording, rest):
    stems = model.separate(recording, TEXTS, sample_rate=11_025, joint=True, rest=rest)
    assert stems.sample_rate == 11_025
    waves = [one.target for one in stems.values()] + ([stems.rest] if rest else [])
    assert all(wave.shape == recording.shape for wave in waves)
    np.testing.assert_allclose(np.sum(waves, axis=0), recording, atol=1e-6)
    for one in stems.values():
        np.testing.assert_allclose(one.target + one.residual, recording, atol=1e-6)
        assert np.std(one.target) > 1e-4


def test_a_long_recording_has_joint_stems_too(model, noise_of, monkeypatch):
    short = LongAudioConfig(window_s=1.0, overlap_s=0.25, one_shot_s=1.5)
    monkeypatch.setattr(model.pipeline.long_audio, "config", short)
    wave = noise_of(1.8)
    short, long = model.separate([wave, wave], [TEXTS, "dog"], sample_rate=RATE, joint=False)
    np.testing.assert_allclose(short["dog"].target, long.target, atol=1e-5)
    stems = model.separate(wave, TEXTS, sample_rate=RATE, joint=True)
    np.testing.assert_allclose(stems["dog"].target + stems["rain"].target, wave, atol=1e-6)


def test_three_true_stems_divide_their_mixture_and_the_rest_is_the_third():
    time = np.arange(32_000) / 16_000
    tones = [0.1 * np.sin(2 * np.pi * hz * time).astype("f4") for hz in (300, 1_100, 4_000)]
    bursts = [tone * ((4 * time + phase) % 1 < 0.6) for phase, tone in enumerate(tones)]
    mixture, rates = np.sum(bursts, axis=0)[None], {"sample_rate": 16_000, "stem_rate": 16_000}
    others = [mixture[0] - one for one in bursts]
    three = divide_among(mixture, bursts, **rates)
    with_rest = divide_among(mixture, bursts[:2], others[:2], **rates)
    for divided in (three, with_rest):
        np.testing.assert_allclose(np.sum(divided, axis=0), mixture, atol=1e-6)
        for wave, true in zip(divided, bursts, strict=True):
            assert audio.si_sdr(wave[0], true) > 12
    # With one text the rest is its residual: the two-stem refinement, bit by bit.
    pair = wiener(mixture, bursts[0], others[0], **rates)
    single = divide_among(mixture, bursts[:1], others[:1], **rates)
    np.testing.assert_array_equal(single, pair)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_a_gate_holds_for_each_of_joint_stems_in_any_order(floor):
    rng, rates = np.random.default_rng(0), {"sample_rate": 8_000, "stem_rate": 8_000}
    stems = list(rng.standard_normal((3, 40_000)).astype(np.float32))
    mixture = (np.round(rng.uniform(-1, 1, (2, 40_000)) * 2**15) / 2**15).astype(np.float32)
    spans = [[("+", 0.0, 3.0)], [("+", 2.0, 5.0)], [("+", 1.0, 2.5)]]
    gate = RefineConfig(gate=True, floor=floor)
    forward = divide_among(mixture, stems, **rates, config=gate, spans=spans)
    backward = divide_among(mixture, stems[::-1], **rates, config=gate, spans=spans[::-1])
    time = np.arange(40_000) / 8_000
    free = divide_among(mixture, stems, **rates, config=RefineConfig(floor=floor))
    for wave, other, whole, ((_, begin, end),) in zip(
        forward, backward[::-1], free, spans, strict=True
    ):
        np.testing.assert_allclose(wave, other, atol=1e-5)
        assert not wave[:, (time < begin - 0.22) | (time > end + 0.22)].any()
        all_sound = (time > 1.8) & (time < 2.7)
        np.testing.assert_allclose(wave[:, all_sound], whole[:, all_sound], atol=1e-5)
    np.testing.assert_allclose(sum(forward), mixture, atol=1e-7)
    np.testing.assert_array_equal(forward[1][:, time > 3.22], mixture[:, time > 3.22])
    # Without spans of its own a stem has all that the others may not.
    spans = [[("+", 0.0, 3.0)], [("+", 0.0, 4.0)], []]
    forward = divide_among(mixture, stems, **rates, config=gate, spans=spans)
    backward = divide_among(mixture, stems[::-1], **rates, config=gate, spans=spans[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    short = dataclasses.replace(gate, block_s=0.7)
    parts = divide_among(mixture, stems, **rates, config=short, spans=spans)
    np.testing.assert_allclose(parts, forward, atol=1e-5)


def test_where_no_joint_stem_may_sound_only_a_rest_can(model, noise_of, monkeypatch):
    monkeypatch.setattr(model.pipeline, "refinement", RefineConfig(gate=True, gate_margin_s=0.05))
    spans = [[("+", 0.0, 0.1)], [("+", 0.3, 0.5)]]
    call = functools.partial(model.separate, noise_of(0.5), TEXTS, sample_rate=RATE)
    with pytest.raises(UserError, match=r"no stem of audio may sound at 0\.17-0\.23 s, outside"):
        call(spans, joint=True)
    stems = call(spans, rest=True)
    assert not stems["rain"].target[: int(0.22 * RATE)].any()
    spans[0] = [("+", 0.0, 0.2)]
    for one in call(spans, joint=True).values():
        assert not one.target.all()


def test_names_of_files_are_safe_and_all_different():
    texts = ["dog barking", "Dog/Barking!", "../../etc", "狗叫", "?!", "x" * 300, "x" * 301]
    names = file_names(texts)
    assert names[:5] == ["dog_barking", "Dog_Barking-2", "etc", "狗叫", "text"]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(len(name.encode()) <= 40 and "/" not in name for name in names)


@pytest.fixture
def separated(model, folder, noise_of, tmp_path, monkeypatch):
    """Runs the command on a recording, and returns the files of its result."""
    audio.write_wav(tmp_path / "street.wav", noise_of(0.5)[None], RATE)
    monkeypatch.setattr(command, "load", lambda args: model)

    def call(*arguments):
        out = tmp_path / "out"
        call = [str(tmp_path / "street.wav"), "--checkpoint", str(folder), "--out", str(out)]
        status = command.main([*call, "--overwrite", *arguments])
        return status, sorted(file.name for file in out.iterdir()) if out.exists() else []

    return call


def test_the_command_writes_a_stem_for_each_text(separated, tmp_path):
    kinds = ("target", "residual")
    names = sorted(f"{text}.{kind}.wav" for text in TEXTS for kind in kinds)
    assert separated("--text", "dog", "--text", "rain") == (0, [*names, "spectrogram.png"])
    status, names = separated("--stems", "dog, rain", "--rest")
    assert (status, names) == (
        0,
        ["dog.target.wav", "rain.target.wav", "rest.wav", "spectrogram.png"],
    )
    waves = [audio.load(tmp_path / "out" / name).samples for name in names[:3]]
    whole = audio.load(tmp_path / "street.wav").samples
    np.testing.assert_allclose(np.sum(waves, axis=0), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "dog", "--stems", "dog,rain"], "--text and --stems both name"),
        (["--stems", "dog"], "--stems needs two texts or more"),
        (["--stems", "dog,dog"], "text 'dog' of .* is there twice"),
        (["--text", "dog", "--text", "!"], "text '!' of .* has no words"),
        (["--stems", "dog,rain", "--span", "+", "0.1", "0.2"], "--span prompts one sound"),
        (["--stems", "dog,rain", "--video", "x.mp4"], "--video prompts one sound"),
        (["--rest"], "--rest needs a --text, or --stems"),
    ],
)
def test_the_command_refuses_in_one_line(separated, capsys, arguments, message):
    assert separated(*arguments) == (2, [])
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_manifest_has_lists_of_texts_and_continues(model, noise_of, tmp_path):
    for name in "abc":
        audio.write_wav(tmp_path / f"{name}.wav", noise_of(0.5, ord(name))[None], RATE)
    lines = [
        {"id": "a", "audio": "a.wav", "text": TEXTS, "spans": [[["+", 0.1, 0.3]], None]},
        {"id": "b", "audio": "b.wav", "text": "dog", "spans": [["+", 0.1, 0.3]]},
        {"id": "c", "audio": "c.wav"},
        {"id": "d", "audio": "gone.wav", "text": TEXTS},
        {"id": "a.dog", "audio": "b.wav", "text": "dog"},
        {"id": "e", "audio": "b.wav", "text": TEXTS, "spans": [["+", 0.1, 0.3]]},
        {"id": "f", "audio": "b.wav", "text": "dog", "video": "b.mp4"},
    ]
    manifest, out = write_lines(tmp_path / "items.jsonl", lines), tmp_path / "out"
    bad = []
    entries = read_manifest(manifest, bad, texts=TEXTS, rest=True)
    assert [line.number for line in bad] == [5, 6, 7]
    assert "id 'a.dog' is that of line 1" in bad[0].reason
    assert "a list of spans for each of 2 texts" in bad[1].reason
    assert "a video prompts one sound, not texts with a rest" in bad[2].reason
    with pytest.raises(UserError, match="line 1 has no text: the rest is what a text did not"):
        read_manifest(write_lines(tmp_path / "bare.jsonl", lines[2:3]), rest=True)
    settings = Settings(checkpoint="x", stems=TEXTS, options=SeparateOptions(rest=True))
    assert set(run(model, entries, out, settings)) == {"d"}
    names = sorted(file.name for file in out.glob("*.wav"))
    ends = ("dog.target", "rain.target", "rest")
    expected = [f"{name}.{end}.wav" for name in "ac" for end in ends]
    assert names == sorted([*expected, "b.dog.target.wav", "b.rest.wav"])
    stems = [audio.load(out / name).samples for name in names if name.startswith("a.")]
    whole = audio.load(tmp_path / "a.wav").samples
    np.testing.assert_allclose(np.sum(stems, axis=0), whole, atol=1e-6)
    records = {r["id"]: r for r in map(json.loads, (out / "done.jsonl").read_text().splitlines())}
    assert [(part["text"], part["name"]) for part in records["a"]["texts"]] == [
        ("dog", "dog"),
        ("rain", "rain"),
    ]
    bytes_before = {name: (out / name).read_bytes() for name in names}
    (out / "a.rain.target.wav").unlink()  # so that item a is not done
    assert set(run(model, entries, out, settings)) == {"d"}
    assert {name: (out / name).read_bytes() for name in names} == bytes_before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": []}, r"several texts of audio must be a list of them, not \[\]"),
        ({"text": ["dog", 3]}, "text of audio must be a string, not 3"),
        ({"text": TEXTS, "spans": [("+", 0, 0.2)]}, "spans of audio must be a list with a list"),
        ({"text": TEXTS, "video_features": np.zeros((13, 4))}, "a video prompts one sound"),
        ({"text": "dog", "joint": True}, r"\(joint, rest\) need a list of texts"),
        ({"text": ["dog"], "joint": True}, "need two texts or more, or the rest"),
        ({"text": TEXTS, "rest": True, "watermark": "random"}, "carry no watermark"),
    ],
)
def test_wrong_calls(model, noise_of, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        model.separate(noise_of(0.5), sample_rate=RATE, **arguments)
    assert "\n" not in str(caught.value)


def test_notes_of_every_text_are_printed_and_recorded(model, separated, noise_of, tmp_path, capsys):
    texts = ["dog " * 200, "rain " * 200, "cat " * 200]
    separated(*[word for text in texts for word in ("--text", text)])
    printed = capsys.readouterr().err
    audio.write_wav(tmp_path / "a.wav", noise_of(0.5)[None], RATE)
    manifest = write_lines(tmp_path / "items.jsonl", [{"id": "a", "audio": "a.wav", "text": texts}])
    assert run(model, read_manifest(manifest), tmp_path / "run", Settings(checkpoint="x")) == {}
    (record,) = map(json.loads, (tmp_path / "run" / "done.jsonl").read_text().splitlines())
    for tokens in (800, 1_000, 800):
        note = f"its text has {tokens} tokens, of which the first 511 are read"
        assert printed.count(note) == sum(note in one for one in record["notes"])
        assert note in printed
    assert len(record["notes"]) == 3


def test_texts_that_the_model_reads_as_one_are_refused(model, noise_of, monkeypatch):
    texts = ["dog", "Dog."]
    for normalizes in (False, True):
        tokenizer = dataclasses.replace(model.pipeline.tokenizer, normalizes=normalizes)
        monkeypatch.setattr(model.pipeline, "tokenizer", tokenizer)
        call = functools.partial(
            model.items, noise_of(0.5), texts, options=SeparateOptions(), sample_rate=RATE
        )
        if normalizes:
            with pytest.raises(UserError, match=r"texts 'dog' and 'Dog\.' of audio are one"):
                call()
        else:
            assert [item.text for item in call()] == texts


def test_a_stream_has_one_text(model):
    with pytest.raises(UserError, match="a stream has one text"):
        stream(model, [], RATE, text=TEXTS)
