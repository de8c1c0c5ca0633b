"""Containers store the time of each packet; a player follows it."""

import struct

import av
import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.audio import ogg
from sam_audio_jax.audio.timeline import lay_out
from tests.audio.recordings import RATE, by_av, by_soundfile, joined, lag, level, sound

WAVE = sound(3.0)
CONTAINERS = [
    ("mkv", "libopus"),
    ("webm", "libopus"),
    ("mp4", "aac"),
    ("mka", "flac"),
    ("ts", "aac"),
    ("mkv", "pcm_s16le"),
]


@pytest.mark.parametrize(("kind", "codec"), CONTAINERS)
def test_holes_are_silent_and_what_follows_keeps_its_time(tmp_path, kind, codec):
    holes = [(0.8, 1.3), (1.9, 2.15)]
    loaded = audio.load(by_av(tmp_path / f"a.{kind}", WAVE, codec, holes=holes))
    assert loaded.samples.shape[1] == pytest.approx(WAVE.shape[1], abs=0.04 * RATE)
    assert "holes are silent" in loaded.notes[0]
    for start, stop in holes:
        assert level(loaded.samples, start + 0.1, stop - 0.01) < 1e-4
    after = slice(round(2.3 * RATE), None)
    encoder_delay = 0.022 if kind == "ts" else 0.001  # MPEG-TS does not store it
    assert abs(lag(loaded.samples[:, after], WAVE[:, after])) < encoder_delay


@pytest.mark.parametrize("size", [0.0004, 0.003, 0.01])
@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_jitter_of_time_stamps_changes_no_sample(tmp_path, kind, size):
    codec = "libopus" if kind == "mkv" else "aac"
    steady = audio.load(by_av(tmp_path / f"a.{kind}", WAVE, codec))
    jitter = np.random.default_rng(0).uniform(-size, size, 200)
    jitter[0] = 0
    shaken = audio.load(by_av(tmp_path / f"b.{kind}", WAVE, codec, jitter=jitter))
    assert shaken.notes == ()
    size = min(steady.samples.shape[1], shaken.samples.shape[1])
    assert abs(shaken.samples.shape[1] - steady.samples.shape[1]) <= 0.02 * RATE
    np.testing.assert_array_equal(steady.samples[:, :size], shaken.samples[:, :size])


@pytest.mark.parametrize(
    ("begin", "seconds"),
    [(1.7, 3.2), (2.6, 4.1), (0.0, 3.5), (100.0, 3.5)],
    ids=["overlap", "hole", "restart", "new clock"],
)
def test_joined_transport_streams(tmp_path, begin, seconds):
    first = by_av(tmp_path / "a.ts", sound(2.0), "aac")
    second = by_av(tmp_path / "b.ts", sound(1.5, hz=700), "aac", begin=begin)
    both = audio.load(joined(tmp_path / "c.ts", first, second))
    assert both.samples.shape[1] / RATE == pytest.approx(seconds, abs=0.1)
    if seconds != 3.5:
        start = round((begin + 0.5) * RATE)  # the overlap is cut from the second
        assert abs(lag(both.samples[:, start:], sound(1.5, hz=700)[:, RATE // 2 :])) < 0.1


def placement_of(times, **arguments):
    """Where pieces of 20 ms with such times lie."""
    return lay_out(np.asarray(times), np.full(len(times), 0.02), **arguments)


STEADY = 0.02 * np.arange(300)
LATER = STEADY >= 3


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        (STEADY + 0.5 * LATER, 0.5),
        (STEADY - 0.3 * LATER, -0.3),
        (STEADY + 0.02 * LATER, 0.02),
        (np.round(STEADY + 0.02 * LATER, 3), 0.02),
        (STEADY + 500 * LATER, 500),
        (STEADY - 3 * LATER, 0),  # the clock began anew
        (STEADY + 1e9 * LATER, 0),  # a damaged time
        (STEADY + 5.0 * (np.arange(300) == 150), 0),  # of one packet
        (1.002 * STEADY, 0),
    ],
)
def test_only_sharp_and_persistent_deviations_are_gaps(times, gap):
    placement = placement_of(times)
    expected = np.zeros(300)
    expected[150] = gap
    np.testing.assert_allclose(placement.silences, expected, atol=2e-3)
    np.testing.assert_array_equal(placement.stretch, 1)


def test_a_steady_drift_stretches_the_samples(tmp_path):
    placement = placement_of(1.03 * STEADY)
    assert not placement.silences.any()
    np.testing.assert_allclose(placement.stretch, 1.03, atol=1e-3)
    jitter = 0.03 * 0.02 * np.arange(250)
    drifted = audio.load(by_av(tmp_path / "a.mkv", sound(4.5), "libopus", jitter=jitter))
    assert drifted.samples.shape[1] / RATE == pytest.approx(4.5 * 1.03, abs=0.03)
    assert "they are stretched by" in drifted.notes[0]
    assert np.abs(np.diff(drifted.samples)).max() < 0.2  # no click


@pytest.mark.parametrize("begin", [7, 3_600])
def test_fragments_of_a_stream_have_no_wrong_length(tmp_path, begin):
    """They were recorded from a stream that had run before, from which their times count."""
    path = tmp_path / "a.mp4"
    with av.open(
        str(path), "w", options={"movflags": "empty_moov", "frag_duration": "500000"}
    ) as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        for start in range(0, WAVE.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(WAVE[:, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    whole = audio.load(path).samples
    content, at = bytearray(path.read_bytes()), 0
    while (at := content.find(b"tfdt", at + 1)) >= 0:
        time = int.from_bytes(content[at + 8 : at + 16], "big") + begin * RATE
        content[at + 8 : at + 16] = time.to_bytes(8, "big")
    path.write_bytes(content)
    recording = audio.load(path)
    assert recording.notes == ()
    size = min(whole.shape[1], recording.samples.shape[1])
    assert size > WAVE.shape[1] - 1024
    np.testing.assert_array_equal(recording.samples[:, :size], whole[:, :size])


def test_a_sound_that_begins_late_and_is_cut_off_has_no_wrong_length(tmp_path):
    path = by_av(tmp_path / "a.mp4", WAVE, "aac")
    content = bytearray(path.read_bytes())
    names = [b"moov", b"trak", b"edts", b"elst"]
    at = content.index(b"elst")
    entries = struct.pack(">IIiII", 2, 500, -1, 1 << 16, 2_000) + content[at + 16 : at + 24]
    for name in names:  # one entry of 12 bytes more: 0.5 s of nothing
        size = content.index(name) - 4
        longer = int.from_bytes(content[size : size + 4], "big") + 12
        content[size : size + 4] = longer.to_bytes(4, "big")
    content[at + 8 : at + 24] = entries
    path.write_bytes(content)
    recording = audio.load(path)
    assert recording.notes == ()
    assert recording.samples.shape[1] == 2 * RATE
    assert lag(recording.samples, WAVE[:, : 2 * RATE]) == 0


def test_rare_losses_in_jittering_times_do_not_add_up(tmp_path):
    rng = np.random.default_rng(0)
    kept = rng.uniform(size=600) > 0.1
    times = (0.02 * np.arange(600) + rng.uniform(-0.015, 0.015, 600))[kept]
    placement = placement_of(times)
    starts = np.cumsum(0.02 + placement.silences) - 0.02
    assert np.abs(starts - times + times[0]).max() < 0.2


@pytest.mark.parametrize("begin", [0.0, 312 / 48_000, 1.0])
def test_ogg_opus_is_in_time_wherever_its_positions_begin(tmp_path, begin):
    wave = sound(2.5)
    path = by_av(tmp_path / "a.opus", wave, "libopus", begin=begin)
    whole = audio.load(path).samples
    assert lag(whole, wave) == 0
    assert whole.shape[1] == pytest.approx(wave.shape[1], abs=960)
    for start in (0, 48_000):
        part = audio.load_excerpt(path, start, 48_000, 48_000)
        assert lag(part, whole[:, start : start + 48_000]) == 0


@pytest.mark.parametrize("kind", ["opus", "ogg"])
def test_a_radio_stream_begins_where_the_listener_came(tmp_path, kind):
    """Its headers are followed by the pages of an hour later."""
    wave = sound(4.0) + np.random.default_rng(0).uniform(-0.2, 0.2, 4 * RATE).astype(np.float32)
    pages = ogg_pages(by_soundfile(tmp_path / f"a.{kind}", wave).read_bytes())
    first = next(number for number, page in enumerate(pages) if page[6:14] != bytes(8))
    later = [moved_page(page, 3_600 * RATE, 3_600) for page in pages[first + 1 :]]
    path = tmp_path / f"b.{kind}"
    path.write_bytes(b"".join([*pages[:first], *later]))
    recording = audio.load(path)
    assert recording.notes == ()
    assert 2.5 < recording.samples.shape[1] / RATE < 4
    tail = slice(-2 * RATE, None)
    assert abs(lag(recording.samples[:, tail], wave[:, tail])) < 0.002
    assert level(recording.samples, 0.0, 0.5) > 0.1


@pytest.mark.parametrize("samples", [1_000, 5 * RATE])
def test_flac_in_ogg_has_no_hole_wherever_its_positions_begin(tmp_path, samples):
    path = by_av(tmp_path / "a.oga", WAVE, "flac")
    pages = ogg_pages(path.read_bytes())
    path.write_bytes(b"".join(moved_page(page, samples) for page in pages))
    recording = audio.load(path)
    assert recording.notes == ()
    np.testing.assert_allclose(recording.samples, WAVE, atol=1e-4)


def ogg_pages(content: bytes) -> list[bytes]:
    """The pages of a whole Ogg file."""
    pages = ogg._pages(content)
    return [content[page.start : page.stop] for page in pages]


def moved_page(page: bytes, samples: int, pages: int = 0) -> bytes:
    """The same page, so many samples and pages later."""
    head = bytearray(page)
    position, number = struct.unpack("<q", page[6:14])[0], struct.unpack("<I", page[18:22])[0]
    head[6:14] = struct.pack("<q", position + samples if position > 0 else position)
    head[18:22] = struct.pack("<I", number + pages)
    head[22:26] = struct.pack("<I", ogg._checksum(bytes(head)))
    return bytes(head)


def test_ogg_opus_from_zero_is_read_by_its_structure(tmp_path):
    path = by_soundfile(tmp_path / "a.opus", sound(2.5))
    assert audio.header_length(path) == (120_000, 48_000)
    part = audio.load_excerpt(path, 0, 48_000, 48_000)
    np.testing.assert_allclose(part, audio.load(path).samples[:, :48_000], atol=1e-3)


@pytest.mark.parametrize("rate", [0, 16_000, 44_100])
def test_opus_is_decoded_at_its_own_rate_whatever_its_source_had(tmp_path, rate):
    path = by_soundfile(tmp_path / "a.opus", sound(1.0, hz=9_000))
    content = bytearray(path.read_bytes())
    at = content.index(b"OpusHead") + 12
    content[at : at + 4] = struct.pack("<I", rate)
    page = bytes(content[: 28 + content[27]])
    content[22:26] = struct.pack("<I", ogg._checksum(page))
    path.write_bytes(content)
    recording = audio.load(path)
    assert (recording.sample_rate, recording.samples.shape) == (48_000, (1, 48_000))
    assert level(recording.samples, 0.1, 0.9) > 0.1
    assert recording.notes == ()
