"""What the plan of the scorers compiles is what the scorers run; rates and chips by hand."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.cli.plan import main
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.encoders.wavlm import WavlmConfig
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import chips, flops, printout, scoring_run
from sam_audio_jax.plan.programs import Program
from sam_audio_jax.plan.scorer_calls import (
    BenchmarkRun,
    PlannedScorer,
    ScorerCall,
    aesthetics_calls,
    clap_calls,
    imagebind_calls,
    judge_calls,
)
from sam_audio_jax.scorers import aesthetics as aesthetics_scorer
from sam_audio_jax.scorers import clap_scorer, imagebind_scorer, judge_scorer
from sam_audio_jax.scorers.aesthetics import Aesthetics, AestheticsConfig, AestheticsScorer
from sam_audio_jax.scorers.clap import Clap
from sam_audio_jax.scorers.clap_scorer import ClapScorer, ClapScoring
from sam_audio_jax.scorers.imagebind import ImageBind
from sam_audio_jax.scorers.imagebind_scorer import ImageBindScorer
from sam_audio_jax.scorers.judge import Judge
from sam_audio_jax.scorers.judge_scorer import JudgeScorer, JudgeScoring
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from tests.scorers.test_clap_scorer import roberta_tokenizer
from tests.scorers.tiny_imagebind import TINY as IMAGEBIND
from tests.tiny import CLAP, JUDGE, filled

CANDIDATES = 2
ITEMS = 4  # of each test, enough to fill one batch at least
AESTHETICS = AestheticsConfig(
    wavlm=WavlmConfig(
        convolutions=((4, 10, 5), (4, 3, 2)),
        width=8,
        depth=1,
        heads=2,
        mlp=8,
        position_window=4,
        position_groups=2,
    ),
    sample_rate=400,
    window=160,
)


def run_of(seconds: float, sample_rate: int) -> BenchmarkRun:
    return BenchmarkRun(
        items=ITEMS, candidates=CANDIDATES, seconds=seconds, sample_rate=sample_rate
    )


def video(times):
    yield np.zeros((len(times), 16, 20, 3), np.uint8)


def judge() -> tuple[Scorer, PlannedScorer, BenchmarkRun]:
    run, scoring = run_of(10.0, 400), JudgeScoring(texts=ITEMS)
    network = filled(lambda: Judge(JUDGE, rngs=Rngs(0)))
    scorer = JudgeScorer(network, tokenizer_for("byt5"), scoring)
    return scorer, judge_calls(run, JUDGE, scoring), run


def judge_in_windows() -> tuple[Scorer, PlannedScorer, BenchmarkRun]:
    run = run_of(10.0, 200)
    scoring = JudgeScoring(window_s=4.0, batch_s=36.0, texts=ITEMS)
    network = filled(lambda: Judge(JUDGE, rngs=Rngs(0)))
    scorer = JudgeScorer(network, tokenizer_for("byt5"), scoring)
    return scorer, judge_calls(run, JUDGE, scoring), run


def clap() -> tuple[Scorer, PlannedScorer, BenchmarkRun]:
    run, scoring = run_of(0.5, 1600), ClapScoring(batch=ITEMS, via_wav=True)
    network = filled(lambda: Clap(CLAP, rngs=Rngs(0)))
    return ClapScorer(network, roberta_tokenizer(), scoring), clap_calls(run, CLAP, scoring), run


def aesthetics() -> tuple[Scorer, PlannedScorer, BenchmarkRun]:
    run = run_of(1.0, 800)
    network = filled(lambda: Aesthetics(AESTHETICS, rngs=Rngs(0)))
    return AestheticsScorer(network), aesthetics_calls(run, AESTHETICS), run


def imagebind() -> tuple[Scorer, PlannedScorer, BenchmarkRun]:
    run = run_of(2 * IMAGEBIND.clip_s, 2 * IMAGEBIND.sample_rate)
    network = filled(lambda: ImageBind(IMAGEBIND, rngs=Rngs(0)))
    return ImageBindScorer(network), imagebind_calls(run, IMAGEBIND), run


# What a program gives for each row of a batch: nothing is computed here.
RESULTS = {
    judge_scorer.window_sums: (CANDIDATES, 4),
    Judge.embed_text: (JUDGE.bottleneck,),
    clap_scorer.embed_pieces: (CLAP.embedding,),
    Clap.embed_text: (CLAP.embedding,),
    aesthetics_scorer.score_pieces: (4,),
    imagebind_scorer.encode_pieces: (IMAGEBIND.output,),
    ImageBind.encode_crops: (IMAGEBIND.output,),
}
Shapes = list[tuple[tuple[int, ...], str]]


def shapes_of(arrays) -> Shapes:
    return [(tuple(x.shape), jax.dtypes.canonicalize_dtype(x.dtype).name) for x in arrays]


@pytest.mark.parametrize("make", [judge, judge_in_windows, clap, aesthetics, imagebind])
def test_the_planned_batches_are_those_that_a_scorer_runs(
    make: Callable[[], tuple[Scorer, PlannedScorer, BenchmarkRun]], monkeypatch
):
    runs: list[tuple[Callable, Shapes, dict]] = []
    scorer, planned, run = make()

    def on_batch(self, program, *arrays, **static):
        runs.append((program, shapes_of(arrays), static))
        return np.zeros((len(arrays[0]), *RESULTS[program]), np.float32)

    monkeypatch.setattr(Compiled, "on_batch", on_batch)
    samples = round(run.seconds * run.sample_rate)
    mixtures = np.zeros((ITEMS, samples), np.float32)
    candidates = np.zeros((ITEMS, CANDIDATES, samples), np.float32)
    prompts = [PromptView(text=f"text {item}", video=video) for item in range(ITEMS)]
    scorer.score(mixtures, candidates, np.full(ITEMS, samples), run.sample_rate, prompts)

    for call in planned.calls:
        of_program = [one for one in runs if one[0] is call.program]
        full = [one for one in of_program if one[1] == shapes_of(call.arrays)]
        assert full, (call.what, shapes_of(call.arrays), [one[1] for one in of_program])
        assert full[0][2] == dict(call.static)
        # All items are served by as many runs as the plan counts, the last one being filled up.
        assert len(of_program) == -(-ITEMS // call.items)
    assert {one[0] for one in runs} == {call.program for call in planned.calls}


def test_full_float32_takes_six_passes_and_half_precision_one():
    wide, half = (jax.ShapeDtypeStruct((8, 8), dtype) for dtype in ("float32", "bfloat16"))

    def passes(x: jax.ShapeDtypeStruct, precision: str) -> int:
        (product,) = flops.products(lambda x: jnp.matmul(x, x, precision=precision), x)
        assert product.flops == 2 * 8**3
        return product.passes

    assert [passes(wide, p) for p in ("highest", "high", "default")] == [6, 3, 1]
    assert passes(half, "highest") == 1


def square(size: int) -> tuple[PlannedScorer, ScorerCall]:
    """A matrix whose product with as many rows is all that a scorer of one program does."""

    def program(network: nnx.Linear, x: jax.Array) -> jax.Array:
        return jnp.matmul(x, network.kernel[...], precision="default")

    network = nnx.eval_shape(lambda: nnx.Linear(size, size, use_bias=False, rngs=Rngs(0)))
    rows = jax.ShapeDtypeStruct((size, size), jnp.float32)
    call = ScorerCall(what="sounds", program=program, arrays=(rows,), items=0.5)
    return PlannedScorer(network=network, calls=(call,)), call


def test_chips_follow_from_the_time_of_an_item():
    target = chips.parse("v5e:16x16")
    mesh = parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])
    scorer, call = square(16_384)
    program = Program(fits=True, needed=3.0 * 2**30)
    one = scoring_run.call_figures(scorer, call, program, mesh, target)
    batch_s = 2 * 16_384**3 / 197e12
    assert one["roofline_s"] == pytest.approx(batch_s)
    assert one["realistic_s"] == pytest.approx(batch_s / 0.669)
    run = BenchmarkRun(items=2607, within_s=60.0)
    figures = scoring_run.scorer_figures(scorer, [one], run, target)
    assert figures["parameters"] == 16_384**2
    assert figures["roofline"]["items_per_s"] == pytest.approx(256 / (2 * batch_s))
    assert figures["roofline"]["chips"] == np.ceil(2607 * 2 * batch_s / 60) == 4
    text = printout.scorer_text("square", figures, run, target)
    assert "chips          for 2607 items x 8 candidates in 60 s: 4 roofline, 6 realistic" in text
    assert printout.all_scorers_text([figures, figures]).endswith("8 roofline, 12 realistic chips")


def test_weights_that_are_no_half_of_a_chip_are_copied():
    chip = chips.CHIPS["v5e"]
    small, large = (square(size)[0].network for size in (1024, 65_536))
    assert scoring_run.layout(small, chip) == MeshConfig(data=-1, fsdp=1)
    assert scoring_run.layout(large, chip) == MeshConfig(fsdp=-1)


def test_the_default_run_is_that_of_the_published_protocol():
    run = dataclasses.asdict(BenchmarkRun())
    assert (run["items"], run["candidates"], run["within_s"]) == (2607, 8, 600)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["scorers"], "--topology is needed for `scorers`"),
        (["scorers", "--topology", "v5e-256", "--batch", "8"], "unrecognized arguments for"),
        (["scorers", "--topology", "v5e-256", "--search"], "--search is for trainings"),
        (["scorers", "--topology", "v5e-256", "--skip-sampler"], "--skip-sampler is for trainings"),
        (["scorers", "--topology", "v5e-256", "--only", "pesq"], "argument --only: invalid choice"),
        (["scorers", "--topology", "v5e-256", "--candidates", "0"], "0 must be 1 or more"),
        (["scorers", "--topology", "v5e-256", "--rows", "2"], "--rows is for trainings"),
        (["small@v5e-256", "--items", "9"], "--items is for `scorers`"),
        (["small@v5e-256", "--tries", "9"], "--tries has no effect without --search"),
        (["small@v5e-256", "--search", "--rows", "2"], "--rows has no effect with --search"),
        (["small@v5e-256", "--search", "--skip-sampler"], "--skip-sampler has no effect with"),
        (["small@v5e-256", "--skip-sampler", "--rows", "2"], "--rows has no effect with --skip"),
    ],
)
def test_wrong_use_is_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
