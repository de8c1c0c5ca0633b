"""Texts to spans to anchors: the reference's numbers, and what padding may change."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.codec.codec import pad_to_hop
from sam_audio_jax.convert.pe_a_frame import load_span_predictor
from sam_audio_jax.encoders.modernbert import ModernBertConfig
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.encoders.span_predictor import SpanPredictor, SpanPredictorConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import span_prediction
from sam_audio_jax.infer.processor import anchor_slots
from sam_audio_jax.nn.call import jitted
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.prompts import ANCHOR_IDS, frame_anchors, valid_frames

GRID = {"hop": 1920, "sample_rate": 48_000}
TINY = SpanPredictorConfig(
    audio=PeavConfig(depth=1, width=16, heads=2, mlp=24),
    text=ModernBertConfig(vocab_size=31, width=16, depth=2, heads=2, mlp=12, window=4),
    channels=3,
    embed=8,
    encoder_dim=2,
    encoder_rates=(2, 2),
    sample_rate=100,
    waves=True,
)


@dataclasses.dataclass
class Words:
    """A tokenizer that returns stored arrays."""

    ids: np.ndarray
    mask: np.ndarray

    def __call__(self, texts, length=None):
        return self.ids[: len(texts)], self.mask[: len(texts)]


@pytest.fixture(scope="module")
def folder(fixtures_dir):
    return fixtures_dir.resolve() / "pe_a_frame"


def pairs(rows):
    return [[tuple(span) for span in row] for row in rows]


@pytest.mark.golden
def test_spans_from_the_references_probabilities(folder):
    listed = json.loads((folder / "span_patterns.json").read_text())
    stored = load_file(folder / "span_patterns.safetensors")
    grid = {"hop": listed["hop_length"], "sample_rate": listed["sampling_rate"]}
    for threshold, want in listed["spans"].items():
        got = span_prediction.find_spans(stored["probs"], float(threshold), **grid)
        assert got == pairs(want), threshold


@pytest.mark.golden
def test_spans_from_the_references_recordings(folder, tmp_path):
    """Row by row, with a mask even where all frames are valid: one shape, one compilation."""
    (tmp_path / "config.json").symlink_to(folder / "config.json")
    (tmp_path / "model.safetensors").symlink_to(folder / "weights.safetensors")
    predictor, _ = load_span_predictor(tmp_path, waves=True)
    cases = sorted(path.stem.removeprefix("io_") for path in folder.glob("io_*"))
    assert cases
    for case in cases:
        io = load_file(folder / f"io_{case}.safetensors")
        latents, valid = latents_of(predictor, io)
        ids, mask = io["input_ids"].astype(np.int32), io["attention_mask"].astype(bool)
        for threshold, want in json.loads((folder / f"spans_{case}.json").read_text()).items():
            for item, row in enumerate(pairs(want)):
                here = slice(item, item + 1)
                got = span_prediction.predict_spans(
                    predictor,
                    Words(ids[here], mask[here]),
                    latents[here],
                    valid[here],
                    ["text"],
                    float(threshold),
                    padding=True,
                )
                assert got == [span_prediction.positive_spans(row)], (case, threshold, item)


def latents_of(predictor, io):
    """The latents of a case and its valid frames, from its waves if it has any."""
    mask = io.get("padding_mask")
    if "input_features" in io:
        latents = io["input_features"]
        return latents, np.ones(latents.shape[:2], bool) if mask is None else mask
    ends = [None] * len(io["input_values"]) if mask is None else mask.sum(axis=1)
    waves = [wave[0, :end] for wave, end in zip(io["input_values"], ends, strict=True)]
    hop = predictor.config.hop
    whole = [pad_to_hop(wave, hop) for wave in waves]
    longest = max(map(len, whole))
    batch = np.stack([np.pad(wave, (0, longest - len(wave))) for wave in whole])
    latents = nnx.jit(lambda predictor, batch: predictor.latents(batch))(predictor, batch)
    return latents, valid_frames([len(wave) // hop for wave in whole])


@pytest.mark.golden
def test_anchors_of_the_references_spans(folder):
    listed = json.loads((folder / "span_to_anchor.json").read_text())
    stored = load_file(folder / "span_to_anchor.safetensors")
    patterns = load_file(folder / "span_patterns.safetensors")["probs"]
    rows = patterns[listed["pattern_rows"]]
    anchors = [
        span_prediction.positive_spans(row)
        for row in span_prediction.find_spans(rows, listed["threshold"], **GRID)
    ]
    assert anchors == pairs(listed["anchors"])
    mask = stored["pad_mask"]
    ids, alignment = anchor_slots(anchors, mask.sum(axis=1).tolist(), frames=mask.shape[1], **GRID)
    np.testing.assert_array_equal(ids, stored["anchor_ids"])
    np.testing.assert_array_equal(alignment, stored["anchor_alignment"])


def anchor_start(frame, *, exact, frames):
    """The frame in which the span that starts at `frame` starts as an anchor."""
    on = np.arange(frames)[None] >= frame
    found = span_prediction.find_spans(on.astype(np.float32), exact=exact, **GRID)
    anchors = frame_anchors(span_prediction.positive_spans(found[0]), 0, frames, **GRID)
    return int(np.argmax(anchors == ANCHOR_IDS["+"]))


@pytest.mark.golden
def test_every_frame_rounds_as_in_the_reference(folder):
    """Seconds for all of them; the way through the anchors for some."""
    stored = load_file(folder / "span_to_anchor.safetensors")
    frames = int(stored["frame"].max()) + 2
    alternating = (np.arange(frames)[None] % 2 == 0).astype(np.float32)
    starts = [start for start, _ in span_prediction.find_spans(alternating, **GRID)[0]]
    even = stored["frame"] % 2 == 0
    np.testing.assert_array_equal(np.float32(starts)[: even.sum()], stored["seconds_float32"][even])
    for frame in [*range(0, 60), *range(60, frames - 2, 97)]:
        wanted = stored["frame_after_roundtrip"][stored["frame"] == frame]
        assert anchor_start(frame, exact=False, frames=frames) == wanted, frame


@pytest.mark.parametrize(("hop", "rate"), [(1920, 48_000), (640, 16_000), (1024, 44_100), (7, 3)])
def test_exact_anchors_keep_their_frames(hop, rate):
    on = (np.arange(5000)[None] % 3 > 0).astype(np.float32)
    found = span_prediction.find_spans(on, hop=hop, sample_rate=rate, exact=True)
    anchors = frame_anchors(
        span_prediction.positive_spans(found[0]), 0, 5000, hop=hop, sample_rate=rate
    )
    np.testing.assert_array_equal(anchors == ANCHOR_IDS["+"], on[0] > 0)


def test_threshold_is_strict_and_gaps_split():
    rows = np.array([[0.3, 0.31, 0.3, 0.9], [0, 0, 0, 0]], np.float32)
    found = span_prediction.find_spans(rows, 0.3, hop=1, sample_rate=1)
    assert found == [[(1.0, 2.0), (3.0, 4.0)], []]


def test_spans_end_with_the_valid_frames():
    rows = np.ones((2, 6), np.float32)
    valid = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], bool)
    assert span_prediction.find_spans(rows, hop=1, sample_rate=1, valid=valid) == [[(0.0, 4.0)], []]
    assert span_prediction.find_spans(rows, hop=1, sample_rate=1) == [[(0.0, 6.0)], [(0.0, 6.0)]]


@pytest.fixture(scope="module")
def tiny():
    predictor = nnx.jit(lambda: SpanPredictor(TINY, rngs=Rngs(1)))()
    predictor.logit_bias[...] = jnp.ones(1)
    predictor.logit_scale[...] = jnp.full(1, 0.3)
    return predictor


def words(texts, tokens, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, TINY.text.vocab_size, (texts, tokens), np.int32)
    return Words(ids, np.ones((texts, tokens), bool))


def latents(batch, frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, frames, TINY.channels)).astype(np.float32)


def test_text_lengths_share_programs_and_padding_is_left_out(tiny):
    x, valid = latents(2, 9), np.arange(9)[None] < np.array([[9], [5]])
    texts = ["a", "b"]
    before = jitted(span_prediction._probabilities)._cache_size()
    for tokens in (3, 9, 16):
        inside = span_prediction.predict_spans(tiny, words(2, tokens), x, valid, texts, 0.0)
    assert jitted(span_prediction._probabilities)._cache_size() == before + 1
    everywhere = span_prediction.predict_spans(
        tiny, words(2, 16), x, valid, texts, 0.0, padding=True
    )
    second = TINY.hop / TINY.sample_rate
    assert [row[-1][2] for row in inside] == pytest.approx([9 * second, 5 * second])
    assert [row[-1][2] for row in everywhere] == pytest.approx([9 * second, 9 * second])


def test_what_does_not_fit_is_the_users_error(tiny):
    x = latents(2, 4)
    with pytest.raises(UserError, match="1 texts were given with 2 items"):
        span_prediction.predict_spans(tiny, words(1, 3), x, None, ["a"])
    with pytest.raises(UserError, match="4 latent channels, the span predictor 3"):
        span_prediction.predict_spans(
            tiny, words(2, 3), np.zeros((2, 4, 4), np.float32), None, ["a", "b"]
        )
    foreign = words(2, 3)
    foreign.ids[0, 0] = TINY.text.vocab_size
    with pytest.raises(UserError, match="belongs to another model"):
        span_prediction.predict_spans(tiny, foreign, x, None, ["a", "b"])
