"""What each scorer runs on a chip: its programs and the shapes of their full batches.

Shapes are those that the scorers' `score` hands to `Compiled.on_batch`, with the batches that they
choose by themselves.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax.bounds import Checked, SampleRate, Seconds, Size
from sam_audio_jax.codec.codec import frame_count
from sam_audio_jax.infer.options import CandidateCount
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers import aesthetics, clap_scorer, imagebind_scorer, judge_scorer, views
from sam_audio_jax.scorers.aesthetics import Aesthetics, AestheticsConfig
from sam_audio_jax.scorers.clap import Clap, ClapConfig
from sam_audio_jax.scorers.clap_scorer import ClapScoring
from sam_audio_jax.scorers.imagebind import ImageBind, ImageBindConfig
from sam_audio_jax.scorers.judge import Judge, JudgeConfig
from sam_audio_jax.scorers.judge_scorer import LEAST_TOKENS, JudgeScoring
from sam_audio_jax.scorers.pieces import PieceShape

ROWS = 819  # of the table of SAM Audio-Bench (docs/benchmark.md)
SONG_ROWS = 150  # of the table of its setting instr-pro
KINDS = 3  # of prompts by which a row may be separated: text, text and spans, video


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRun(Checked, where="run"):
    """What is scored, and until when.

    The default is an upper bound of SAM Audio-Bench, as not every row is in a setting of each kind
    of prompt, and not every scorer is asked for all candidates.
    """

    items: Size = KINDS * ROWS + SONG_ROWS
    candidates: CandidateCount = 8  # as published
    seconds: Seconds = 10.0  # of a clip
    sample_rate: SampleRate = 48_000
    within_s: Seconds = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerCall:
    """A program of a scorer, and how many items one run of it on one shard of a batch serves."""

    what: str
    program: Callable[..., Any]
    arrays: tuple[jax.ShapeDtypeStruct, ...]  # of one shard
    static: tuple[tuple[str, Hashable], ...] = ()
    items: float | int  # with all candidates


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedScorer:
    """A scorer's network, without numbers, and all that it runs."""

    network: nnx.Module
    calls: tuple[ScorerCall, ...]


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _whole(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _flags(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.bool_)


def _sources(rows: int, shape: PieceShape) -> tuple[jax.ShapeDtypeStruct, ...]:
    """What `run_pieces` hands over: sources, skipped samples, lengths."""
    return _floats(rows, shape.source_size), _whole(rows), _whole(rows)


def judge_calls(
    run: BenchmarkRun, config: JudgeConfig | None = None, scoring: JudgeScoring | None = None
) -> PlannedScorer:
    """Windows of a mixture with its candidates, and texts."""
    config, scoring = config or JudgeConfig(), scoring or JudgeScoring()
    whole = PieceShape(size=1, from_rate=run.sample_rate, to_rate=config.sample_rate)
    samples = whole.resampled_length(_samples(run))
    frames = frame_count(samples, config.hop)
    size = min(frames, scoring.window_frames(config))
    rows = scoring.windows(config, size, run.candidates)
    shape = dataclasses.replace(whole, size=size * config.hop)
    windows = ScorerCall(
        what="sounds",
        program=judge_scorer.window_sums,
        arrays=(
            _floats(rows, 1 + run.candidates, shape.source_size),
            _whole(rows),
            _whole(rows),
            _flags(rows, size),
            _floats(rows, config.bottleneck),
        ),
        static=(("shape", shape),),
        items=rows / -(-frames // size),
    )
    tokens = (scoring.texts, LEAST_TOKENS)
    texts = ScorerCall(
        what="texts",
        program=Judge.embed_text,
        arrays=(_whole(*tokens), _flags(*tokens)),
        items=scoring.texts,
    )
    network = nnx.eval_shape(lambda: Judge(config, rngs=Rngs(0)))
    return PlannedScorer(network=network, calls=(windows, texts))


def clap_calls(
    run: BenchmarkRun, config: ClapConfig | None = None, scoring: ClapScoring | None = None
) -> PlannedScorer:
    """One crop of each candidate through a 16-bit file, as published, and texts."""
    config, scoring = config or ClapConfig(), scoring or ClapScoring(via_wav=True)
    shape = PieceShape(size=config.samples, from_rate=run.sample_rate, to_rate=config.sample_rate)
    sounds = ScorerCall(
        what="sounds",
        program=clap_scorer.embed_pieces,
        arrays=_sources(scoring.batch, shape),
        static=(("shape", shape), ("via_wav", scoring.via_wav)),
        items=scoring.batch / run.candidates,
    )
    tokens = (scoring.batch, config.tokens)
    texts = ScorerCall(
        what="texts",
        program=Clap.embed_text,
        arrays=(_whole(*tokens), _flags(*tokens)),
        items=scoring.batch,
    )
    network = nnx.eval_shape(lambda: Clap(config, rngs=Rngs(0)))
    return PlannedScorer(network=network, calls=(sounds, texts))


def aesthetics_calls(run: BenchmarkRun, config: AestheticsConfig | None = None) -> PlannedScorer:
    """Windows of all candidates."""
    config, rows = config or AestheticsConfig(), aesthetics.WINDOWS
    shape = PieceShape(size=config.window, from_rate=run.sample_rate, to_rate=config.sample_rate)
    windows = -(-shape.resampled_length(_samples(run)) // config.window)
    sounds = ScorerCall(
        what="sounds",
        program=aesthetics.score_pieces,
        arrays=_sources(rows, shape),
        static=(("shape", shape),),
        items=rows / (windows * run.candidates),
    )
    network = nnx.eval_shape(lambda: Aesthetics(config, rngs=Rngs(0)))
    return PlannedScorer(network=network, calls=(sounds,))


def imagebind_calls(run: BenchmarkRun, config: ImageBindConfig | None = None) -> PlannedScorer:
    """Clips of all candidates, and all crops of the item's video."""
    config, rows = config or ImageBindConfig(), imagebind_scorer.CLIPS
    shape = PieceShape(
        size=config.clip_samples, from_rate=run.sample_rate, to_rate=config.sample_rate
    )
    sounds = ScorerCall(
        what="sounds",
        program=imagebind_scorer.encode_pieces,
        arrays=_sources(rows, shape),
        static=(("shape", shape),),
        items=rows / (config.audio_clips * run.candidates),
    )
    crops = config.video_clips * views.CROPS
    side = config.image_size
    videos = ScorerCall(
        what="videos",
        program=ImageBind.encode_crops,
        arrays=(_floats(crops, config.clip_frames, side, side, 3),),
        items=1,
    )
    network = nnx.eval_shape(lambda: ImageBind(config, rngs=Rngs(0)))
    return PlannedScorer(network=network, calls=(sounds, videos))


def _samples(run: BenchmarkRun) -> int:
    return int(np.ceil(run.seconds * run.sample_rate))


SCORER_CALLS: dict[str, Callable[[BenchmarkRun], PlannedScorer]] = {
    "judge": judge_calls,
    "clap": clap_calls,
    "aesthetics": aesthetics_calls,
    "imagebind": imagebind_calls,
}
