"""Measures a separator, or compares two results.

sam-audio evaluate --checkpoint tiny --bench embedded --out report
sam-audio evaluate --checkpoint MODEL --bench sam-audio-bench --media CLIPS --out report \\
    --preset text --scorers judge=sam-audio-judge clap=630k-best.pt
sam-audio evaluate --compare REPORT_A REPORT_B --out comparison

Writes OUT/report.html (open it in a browser), OUT/results.json and OUT/audio/, whole or not at all.
With CONFIG the workdir must be of that config, which also names the bench. A call that was killed
is continued by the same one. Any number of processes may share the work, each with its own
--process I --processes N and the same OUT; they need not meet, and the last one to end writes the
results.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, get_args

from jax.sharding import Mesh

from sam_audio_jax import config
from sam_audio_jax.cli.command import (
    add_adapter_option,
    add_dtype_option,
    add_mesh_options,
    add_process_options,
    add_ranker_option,
    at_least,
    command,
    mesh_of,
    process_rank,
    ranker_paths,
)
from sam_audio_jax.convert.load import parameter_bytes
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.compare import compare
from sam_audio_jax.eval.evaluation import evaluate_model
from sam_audio_jax.eval.manifest_suite import Manifest, is_manifest, manifest_suite, open_manifest
from sam_audio_jax.eval.mixtures import folder_of
from sam_audio_jax.eval.prompting import KINDS, PROMPTS, SolverChoice
from sam_audio_jax.eval.results import ABSENT_MEDIAN
from sam_audio_jax.eval.sam_audio_bench import bench_suite
from sam_audio_jax.eval.sam_audio_bench.presets import PRESETS
from sam_audio_jax.eval.sam_audio_bench.settings import SETTINGS, VISUAL_SETTINGS
from sam_audio_jax.eval.score_store import measuring_into, remove_remains
from sam_audio_jax.eval.scoring import DISTANCES, REWORDED, Measures
from sam_audio_jax.eval.suite import Suite
from sam_audio_jax.eval.summary import summary
from sam_audio_jax.files import check_writable
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.scorer_files import (
    load_scorers,
    own_scorers,
    parse_scorers,
    with_scorers,
)
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.separator.flow import Method, TimeGrid
from sam_audio_jax.workdir import Workdir

COMPARED = ("compare", "rows", "out")  # the options of a comparison
BENCH_ONLY = ("media", "bench_table", "musdb", "settings", "preset")


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="evaluate")
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="of the training run")
    parser.add_argument("--workdir", help="of a training run; its newest checkpoint is measured")
    parser.add_argument(
        "--checkpoint", help="shipped name, workdir or step, upstream folder, HF id"
    )
    parser.add_argument(
        "--bench",
        help="embedded, sam-audio-bench, a folder with manifest and mixtures.jsonl, or a manifest "
        "of recordings and prompts, .jsonl as of separate",
    )
    parser.add_argument(
        "--out", type=config.local_folder, required=True, help="folder to make; must not exist"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        choices=KINDS,
        help="those after text+span need a bench that lists them (docs/data.md, 'Fixed mixtures')",
    )
    parser.add_argument("--limit", type=at_least(1), help="so many items, spread over the settings")
    parser.add_argument(
        "--listen", type=at_least(0), default=3, help="items of each setting to listen to"
    )
    _add_bench_options(
        parser.add_argument_group("SAM Audio-Bench (docs/benchmark.md)").add_argument
    )
    _add_solver_options(parser.add_argument_group("how it is separated").add_argument)
    group = parser.add_argument_group("what is measured beside known stems")
    group.add_argument(
        "--scorers",
        nargs="*",
        metavar="NAME=PATH",
        help="judge=DIR clap=FILE aesthetics=DIR imagebind=FILE; default: the judge that the model "
        "ranks with, if it is a shipped one",
    )
    group.add_argument(
        "--distances",
        nargs="+",
        choices=list(DISTANCES),
        help="more measures of targets with a known stem; in sam-audio-bench all by default",
    )
    group = parser.add_argument_group("comparison of two results")
    group.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="reports, or tables of scores by people"
    )
    group.add_argument("--rows", nargs=2, help="of A and B, e.g. model/none/text; default: common")
    add_adapter_option(parser)
    add_dtype_option(parser)
    add_ranker_option(parser)
    add_process_options(parser)
    add_mesh_options(parser)
    options = parser.parse_args(argv)
    _check_subject(parser, options)
    return options


def _check_subject(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Raises `UserError` unless one model is to be measured, or two results compared alone."""
    if not options.compare:
        if options.rows:
            raise UserError("--rows is of --compare A B")
        if bool(options.workdir) == bool(options.checkpoint):
            raise UserError("give either --workdir DIR or --checkpoint PATH")
        return
    for name, value in vars(options).items():
        if name not in COMPARED and value != parser.get_default(name):
            shown = "CONFIG" if name == "config" else f"--{name.replace('_', '-')}"
            raise UserError(f"{shown} is of an evaluation; --compare A B takes --rows and --out")


def _add_bench_options(add: Any) -> None:
    add("--media", help="folder of the clips, SOURCE_DATASET/VIDEO_ID.mp4 or already cut")
    add(
        "--bench-table",
        nargs="+",
        metavar="FILE.parquet",
        help="the released tables; default: the *.parquet in MEDIA or MEDIA/data",
    )
    add("--musdb", help="folder of MUSDB18-HQ, for instr-pro; default: MEDIA")
    names = list(SETTINGS)
    add("--settings", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    about = "; ".join(f"{name}: {preset.about}" for name, preset in PRESETS.items())
    add("--preset", choices=list(PRESETS), metavar="NAME", help=f"a published protocol; {about}")


def _add_solver_options(add: Any) -> None:
    add("--method", choices=get_args(Method), help="of the solver")
    add("--steps", type=at_least(1), help="of the solver")
    add("--grid", choices=get_args(TimeGrid), help="of the solver's steps")
    add("--seed", type=at_least(0), help="of the noise; default: 0")
    add("--candidates", type=at_least(1), help="solves, of which the best is kept; default: 1")
    add(
        "--predict-spans",
        action=argparse.BooleanOptionalAction,
        help="find the spans of texts without any",
    )
    add("--span-predictor", help="folder, HF id or pe-a-frame-{small,base,large}")


def check_workdir(workdir: pathlib.Path, cfg: Any | None) -> None:
    """Raises `UserError` for a folder that is no workdir, or is of another config than `cfg`."""
    saved = Workdir(workdir).read_config()["config"]
    if cfg is not None and (differing := config.differences(saved, cfg)):
        raise UserError(f"{workdir} is of another config: {'; '.join(differing)}")


def check_out(out: pathlib.Path) -> None:
    """Raises `UserError` for a folder that exists or cannot be made."""
    if out.exists():
        if (out / "results.json").is_file():
            remove_remains(out)
        raise UserError(f"--out {out} exists; name a folder that does not")
    check_writable(out, "--out")


@command
def main(argv: list[str]) -> None:
    """Evaluates one model and prints the means; what can be refused is refused before loading."""
    options = read_options(argv)
    cfg = config.from_cli([options.config]) if options.config else None
    out = options.out
    if options.compare:
        check_out(out)
        first, second = options.compare
        print(compare(first, second, out, rows=options.rows))
        return
    if options.workdir:
        check_workdir(pathlib.Path(options.workdir), cfg)
    check_out(out)
    bench = options.bench or getattr(cfg, "eval_bench", "") or "embedded"
    rank = process_rank(options)
    scores = measure(options, bench, rank)
    if scores is None:
        print(
            f"process {rank.index} of {rank.count} is done; the last one writes {out}",
            file=sys.stderr,
        )
        return
    print(summary(out / "results.json"))
    print_following(scores)
    print(f"report: {out / 'report.html'}")


def measure(options: argparse.Namespace, bench: str, rank: ProcessRank) -> dict[str, float] | None:
    """Does this process's share of the work, as `evaluate_model`; checks before it loads."""
    files = open_files(bench, options)
    paths = parse_scorers(options.scorers or ())
    check_scorers(paths, files, options)
    solver, distances = solver_choice(options, bench)
    name = inputs.check_checkpoint(options.workdir or options.checkpoint)
    with measuring_into(options.out, rank):
        mesh = mesh_of(options, lambda: parameter_bytes(name))
        model = SAMAudio.from_pretrained(
            name,
            dtype=options.dtype,
            mesh=mesh,
            span_predictor=options.span_predictor,
            rankers=ranker_paths(options),
            adapters=options.adapter,
        )
        measures = load_measures(model, None if options.scorers is None else paths, distances, mesh)
        if solver.predict_spans:
            model.pipeline.span_finder.require()
        suite = suite_of(bench, files, model, solver, options)
        if files is not None and not measures.scorers:
            print("note: without --scorers only known stems are compared with", file=sys.stderr)
        return evaluate_model(
            model,
            suite,
            options.out,
            prompts=options.prompts or PROMPTS,
            limit=options.limit,
            solver=solver,
            measures=measures,
            listen=options.listen,
            workdir=options.workdir,
            rank=rank,
            loaded=how_loaded(options, model, solver),
        )


def load_measures(
    model: SAMAudio, paths: dict[str, str] | None, distances: tuple[str, ...], mesh: Mesh | None
) -> Measures:
    """What is measured; None: by the judge that the model ranks with, if it is a shipped one.

    The scorers rank the candidates of a model that names no rankers.
    """
    if paths is None:
        paths = own_scorers(model.pipeline.rankers)
    scorers = load_scorers(paths, mesh, model.pipeline.rankers)
    model.pipeline.rankers = with_scorers(model.pipeline.rankers, scorers)
    return Measures(scorers, distances, paths)


def how_loaded(
    options: argparse.Namespace, model: SAMAudio, solver: SolverChoice
) -> dict[str, Any]:
    """What was chosen of the model, for the settings of the results."""
    chosen = {
        "checkpoint": options.workdir or options.checkpoint,
        "dtype": options.dtype,
        "adapters": options.adapter,
    }
    if solver.predict_spans:
        chosen["span_predictor"] = str(model.pipeline.span_finder.source)
    return chosen


def open_files(bench: str, options: argparse.Namespace) -> bench_suite.BenchFiles | Manifest | None:
    """The files of SAM Audio-Bench, or a manifest; of fixed mixtures only the names are checked.

    Raises `UserError` for options of the other bench.
    """
    if bench != bench_suite.NAME:
        for name in BENCH_ONLY:
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} is of --bench {bench_suite.NAME}, not of {bench!r}")
        if not is_manifest(bench):
            folder_of(bench)
            return None
        if options.prompts:
            raise UserError(f"--prompts is of fixed mixtures; the lines of {bench} have prompts")
        return open_manifest(bench)
    if options.prompts:
        raise UserError(f"--prompts is of fixed mixtures; {bench} has --settings")
    if not options.media:
        raise UserError(f"--bench {bench} needs --media DIR, the folder of its clips")
    return bench_suite.open_bench(options.media, options.bench_table or (), options.musdb)


def check_scorers(
    paths: dict[str, str],
    files: bench_suite.BenchFiles | Manifest | None,
    options: argparse.Namespace,
) -> None:
    """Raises `UserError` for a measure of what no item has; before anything is loaded.

    Every item of SAM Audio-Bench and every fixed mixture has a text.
    """
    has_stems = files is None
    if isinstance(files, Manifest):
        entries = files.entries.values()
        has_video = any(entry.video is not None for entry in entries)
        has_text = any(entry.text for entry in entries)
    else:
        settings = options.settings or (
            PRESETS[options.preset].settings if options.preset else SETTINGS
        )
        has_video = files is not None and bool(set(settings) & set(VISUAL_SETTINGS))
        has_stems |= any(SETTINGS[name].value is None for name in settings)
        has_text = True
    there = {"their masked video": has_video, "a text": has_text}
    needs = {"imagebind": "their masked video", "judge": "a text", "clap": "a text"}
    for name, needed in needs.items():
        if name in paths and not there[needed]:
            raise UserError(
                f"--scorers {name} scores targets by {needed}, and what is run has none"
            )
    if options.distances and not has_stems:
        raise UserError("--distances compares with true stems, and what is run has none")


def solver_choice(options: argparse.Namespace, bench: str) -> tuple[SolverChoice, tuple[str, ...]]:
    """How to separate, by the options, else by the preset; and the distances to measure.

    Raises `UserError` for a value that is not allowed, and for a ranker of one candidate.
    """
    preset = PRESETS[options.preset] if options.preset else None

    def chosen(name: str, default: Any) -> Any:
        value = getattr(options, name)
        return value if value is not None else getattr(preset, name, default)

    solver = SolverChoice(
        method=chosen("method", None),
        steps=chosen("steps", None),
        grid=chosen("grid", None),
        seed=chosen("seed", 0),
        candidates=chosen("candidates", 1),
        predict_spans=chosen("predict_spans", False),
    )
    if options.ranker and solver.candidates == 1:
        raise UserError("--ranker chooses among candidates: give --candidates 2 or more with it")
    if options.span_predictor is not None and not solver.predict_spans:
        raise UserError("--span-predictor needs --predict-spans, which it is for")
    all_of_them = tuple(DISTANCES) if bench == bench_suite.NAME else ()
    return solver, all_of_them if options.distances is None else tuple(options.distances)


def suite_of(
    bench: str,
    files: bench_suite.BenchFiles | Manifest | None,
    model: SAMAudio,
    solver: SolverChoice,
    options: argparse.Namespace,
) -> str | Suite:
    """What is run; of SAM Audio-Bench notes say which settings are not, and why."""
    if files is None:
        return bench
    if isinstance(files, Manifest):
        return manifest_suite(files, model, options.limit)
    preset = PRESETS[options.preset] if options.preset else None
    settings: Sequence[str] | None = options.settings
    if settings is None and preset is not None and preset.settings != tuple(SETTINGS):
        settings = preset.settings
    suite = bench_suite.bench_suite(
        files,
        model,
        solver,
        settings=settings,
        limit=options.limit,
        video_text=preset is not None and preset.video_text,
    )
    for setting, reason in suite.not_run.items():
        print(f"note: {setting} is not run: {reason}", file=sys.stderr)
    if suite.missing:
        print(
            f"note: {len(suite.missing)} of {sum(suite.listed.values())} recordings are missing; "
            "the report lists them",
            file=sys.stderr,
        )
    return suite


def print_following(scores: dict[str, float]) -> None:
    """The means over all settings that the summary does not have."""
    for name, value in scores.items():
        column, refine, setting, *kind = name.split("/")
        if (refine, setting) != ("wiener", "all"):
            continue
        if column == "following":
            print(f"  follows {kind[0]:<10} {value:6.0%} of two-source items")
        elif column == REWORDED:
            print(f"  {kind[0]:<18} {round(value, 1) + 0.0:+6.1f} dB against the plain caption")
        elif column == ABSENT_MEDIAN:
            print(f"  {'absent sound':<18} {value:+6.1f} dB of the mixture in the target (median)")
