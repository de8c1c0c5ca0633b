import numpy as np

from sam_audio_jax.data import span_prompts
from sam_audio_jax.scorers.activity import runs


def test_spans_round_up_to_the_frames_they_come_from():
    active = np.array([1, 1, 0, 0, 1, 1, 1, 0, 1, 0], bool)
    for frame_rate in (25.0, 16000 / 640, 43.066):
        rounded = [
            (int(np.ceil(start * frame_rate)), int(np.ceil(end * frame_rate)))
            for _, start, end in span_prompts.positive(active, frame_rate)
        ]
        assert rounded == runs(active)
    assert runs(~active) == [
        (int(np.ceil(start * 25)), int(np.ceil(end * 25)))
        for token, start, end in span_prompts.negative(active, 25.0)
        if token == "-"
    ]


def test_merging_joins_over_the_shortest_rest_and_jitter_stays_inside():
    spans = [("+", 0.0, 1.0), ("+", 1.1, 2.0), ("+", 3.0, 4.0)]
    assert span_prompts.merged(spans, 2) == [("+", 0.0, 2.0), ("+", 3.0, 4.0)]
    moved = span_prompts.jittered(spans, 0.3, 4.0, np.random.default_rng(0))
    assert all(0 <= start < end <= 4.0 for _, start, end in moved)
