"""A stream: any blocks give the same stems, of the right length and in time."""

import pathlib

import numpy as np
import pytest

import sam_audio_jax
from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.stream import stream
from sam_audio_jax.infer.stream_windows import SlidingBuffer

RATE = 8_000
PROMPTS = {"text": "dog barking", "spans": [("+", 0.5, 2.2), ("-", 6.0, 7.0)]}
SHORT = {"window_s": 2.0, "overlap_s": 0.5}


def cut(wave, *sizes):
    """Blocks of these sizes, over and over."""
    start = number = 0
    while start < wave.shape[-1]:
        size = sizes[number % len(sizes)]
        yield wave[..., start : start + size]
        start, number = start + size, number + 1


def join(pieces):
    pieces = list(pieces)
    assert all(piece.target.shape == piece.residual.shape for piece in pieces)
    return tuple(
        np.concatenate([getattr(piece, name) for piece in pieces], axis=-1)
        for name in ("target", "residual")
    )


def test_blocks_of_any_size_give_the_same(model, noise_of):
    wave = noise_of(7.03)
    whole = join(stream(model, [wave], RATE, **PROMPTS, **SHORT))
    assert whole[0].shape == whole[1].shape == wave.shape
    pieces = list(stream(model, cut(wave, 777, 1, 0, 2_501), RATE, **PROMPTS, **SHORT))
    assert len(pieces) > 3
    np.testing.assert_array_equal(join(pieces), whole)


@pytest.mark.parametrize("samples", [1, 300, 8_000, 16_000])
def test_a_stream_of_one_window_is_separated_as_a_recording(model, noise_of, samples):
    wave = noise_of(samples / RATE)
    (piece,) = stream(model, cut(wave, 1_000), RATE, text="dog", seed=3, **SHORT)
    stems = model.separate(wave, "dog", sample_rate=RATE, seed=3)
    np.testing.assert_allclose(piece.target, stems.target, atol=1e-5)
    np.testing.assert_allclose(piece.residual, stems.residual, atol=1e-5)


@pytest.mark.parametrize(("rate", "refine"), [(8_000, None), (22_050, None), (22_050, "wiener")])
def test_no_sample_waits_longer_than_the_latency(model, rate, refine):
    wave = 0.1 * np.random.default_rng(0).standard_normal((2, 7 * rate + 123)).astype(np.float32)
    received = 0

    def microphone():
        nonlocal received
        for block in cut(wave, rate // 50):
            received += block.shape[-1]
            yield block

    pieces = stream(model, microphone(), rate, refine=refine, text="dog", **SHORT)
    assert 2.0 < pieces.latency_s < 3.5
    returned_s = longest_s = 0.0
    for piece in pieces:
        if received < wave.shape[-1]:
            longest_s = max(longest_s, received / rate - returned_s)
        returned_s += piece.target.shape[-1] / piece.sample_rate
    assert longest_s <= pieces.latency_s + 0.02 + 1e-6
    assert longest_s > 0.7 * pieces.latency_s
    assert round(returned_s * rate) in (wave.shape[-1], wave.shape[-1] + 1, wave.shape[-1] + 2)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, None), (22_050, 2), (6_000, 1)])
def test_refined_pieces_are_the_recording(model, rate, channels):
    shape = (6 * rate + 77,) if channels is None else (channels, 6 * rate + 77)
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, shape)
    wave = (np.round(wave * 2**15) / 2**15).astype(np.float32)
    pieces = list(stream(model, cut(wave, 5_000), rate, text="dog", refine="wiener", **SHORT))
    assert {piece.sample_rate for piece in pieces} == {rate}
    target, residual = join(pieces)
    assert target.shape == wave.shape
    np.testing.assert_array_equal(target + residual, wave)
    assert 0 < np.std(target) < np.std(wave)


def test_refinement_in_pieces_is_that_of_the_whole(model, noise_of):
    wave = noise_of(1.9)
    for sizes in ((400,), (16_000,)):
        pieces = stream(model, cut(wave, *sizes), RATE, text="dog", refine="wiener", **SHORT)
        stems = model.separate(wave, "dog", sample_rate=RATE, refine="wiener")
        np.testing.assert_allclose(join(pieces)[0], stems.target, atol=1e-5)


@pytest.mark.parametrize("rates", [(44_100, 16_000), (8_000, 48_000), (22_050, 24_000), (5, 5)])
def test_resampling_in_blocks_is_that_of_the_whole(rates):
    wave = np.random.default_rng(0).standard_normal((2, 50_003)).astype(np.float32)
    whole = audio.resample(wave, *rates)
    for size in (997, 60_000):
        run = audio.Resampler(*rates, 2)
        blocks = [run(block.T) for block in cut(wave, size)]
        blocks.append(run(np.zeros((0, 2), np.float32), last=True))
        np.testing.assert_array_equal(np.concatenate(blocks).T, whole)


def test_silence_and_nothing(model):
    assert list(stream(model, [], RATE, text="dog", **SHORT)) == []
    assert list(stream(model, [np.zeros(0, np.float32)], RATE, text="dog", **SHORT)) == []
    target, _ = join(stream(model, [np.zeros(40_000, np.float32)], RATE, text="dog", **SHORT))
    assert target.shape == (40_000,)
    assert np.isfinite(target).all()


def test_a_sliding_buffer_forgets_and_keeps_its_indices():
    buffer = SlidingBuffer(2)
    for number in range(10):
        buffer.append(np.full((3, 2), number, np.float32))
        buffer.forget(3 * number - 3)
    assert (buffer.start, buffer.stop) == (24, 30)
    np.testing.assert_array_equal(buffer.read(26, 29)[:, 0], [8, 9, 9])


def test_memory_of_a_stream_is_that_of_a_window(model, noise_of):
    pieces = stream(model, cut(noise_of(30.0), 4_000), RATE, refine="wiener", text="dog", **SHORT)
    rows = []
    for _ in pieces:
        fields = [*vars(pieces._queue).values(), *vars(pieces._divider).values()]
        buffers = [field for field in fields if isinstance(field, SlidingBuffer)]
        rows.append(sum(buffer.stop - buffer.start for buffer in buffers))
    half = len(rows) // 2
    assert max(rows[half:]) <= max(rows[:half]) + 4_000  # a block more or less
    assert max(rows) < 45_000  # samples and frames of all kinds, of a stream of 240,000 samples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_s": 30.0}, "window_s=30 must be 0.04 to 20"),
        ({"overlap_s": 1.5}, "overlap_s=1.5 must be 0 to half of window_s=2"),
        ({"window_s": float("nan")}, "window_s=nan must be"),
        ({"overlap_s": float("inf")}, "overlap_s=inf must be"),
        ({"text": None}, "nothing says what to separate from the stream"),
        ({"text": " . "}, "nothing says what to separate from the stream"),
        ({"sample_rate": 0}, "sample_rate=0 must be a whole number of Hz"),
        ({"text": 3}, "text of the stream must be a string"),
        ({"spans": [("+", 2.0, 1.0)]}, "must have 0 <= start < end"),
        ({"spans": "+"}, "spans of the stream must be a list"),
        ({"refine": "mask"}, "allowed: 'wiener'"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_wrong_arguments_are_refused_at_once(model, arguments, message):
    with pytest.raises(UserError, match=message):
        stream(model, [], **{"sample_rate": RATE, "text": "dog"} | SHORT | arguments)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([np.zeros(9, "i2")], "not int16 of shape"),
        ([np.zeros((1, 1, 9), "f4")], "shape \\(1, 1, 9\\)"),
        ([np.zeros((0, 9), "f4")], "shape \\(0, 9\\)"),
        ([np.zeros((480, 2), "f4")] * 2, "480 channels of 2 samples: transposed"),
        ([np.zeros((480, 1), "f4")] * 2, "480 channels of 1 samples: transposed"),
        ([np.zeros(9, "f4"), np.zeros((2, 9), "f4")], "block of shape \\(2, 9\\) follows"),
        ([np.full(9, np.nan, "f4")], "NaN or infinite"),
        ([np.full(9, 1e30, "f4")], "samples of 1e.15 times full scale or more"),
    ],
)
def test_wrong_blocks_are_refused_when_they_arrive(model, blocks, message):
    with pytest.raises(UserError, match=message):
        list(stream(model, blocks, RATE, text="dog", **SHORT))


def test_real_sound_through_the_shipped_model():
    """Twelve seconds of two recordings: the refined stream divides them as the whole does."""
    sounds = pathlib.Path(sam_audio_jax.__file__).parent / "data" / "embedded" / "audio"
    files = [sorted((sounds / kind).glob("*.ogg"))[0] for kind in ("speech", "music")]
    loaded = [audio.load(file) for file in files]
    rate = loaded[0].sample_rate
    first, second = (np.resize(one.samples.mean(0), 8 * rate) for one in loaded)
    wave = (0.5 * (first + second)).astype(np.float32)
    model = SAMAudio.from_pretrained("tiny")
    options = {"text": "speech", "refine": "wiener", "steps": 1, "method": "euler"}
    pieces = stream(model, cut(wave, rate // 10), rate, window_s=4.0, overlap_s=1.0, **options)
    target, residual = join(pieces)
    np.testing.assert_allclose(target + residual, wave, atol=1e-7)
    whole = model.separate(wave, sample_rate=rate, **options)
    assert np.corrcoef(target, whole.target)[0, 1] > 0.7
    assert np.corrcoef(residual, whole.residual)[0, 1] > 0.7


def test_prompts_without_effect_are_named_at_once(model):
    with pytest.warns(UserWarning, match=r"the stream: span \+ 0\.501-0\.502 s has no effect"):
        stream(model, [], RATE, text="dog", spans=[("+", 0.501, 0.502)])
    with pytest.warns(UserWarning, match="the stream: its text has 800 tokens, of which"):
        stream(model, [], RATE, text="dog " * 200)
