"""Whether pseudo-labels help: train, label, filter, train on, compare, by one command.

python -m tools.label_loop --config tiny@words --source A --source B --bench BENCH --out runs/loop

The training recordings of the sources are divided in halves without a common source. A model is
trained on the first half. Mixtures of the second half are labelled by that model, which is
prompted by their captions and never reads their stems. Then equal numbers of further updates, from
the same weights, with several seeds, in five arms: the first half alone; with all labels; with
those that pass the filters; with as many random ones; with the true stems of the same mixtures.
All arms are evaluated on the held-out mixtures of BENCH. OUT/report.html has their means with
intervals, and for each score how well it separates good labels from bad ones. A call that was
stopped is continued by the same one; each step is a command of `sam-audio` in its own process.
"""

import concurrent.futures
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sam_audio_jax import audio, config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import LabelConfig, SourceConfig
from sam_audio_jax.data.label_scores import LABEL_SCORES, failing
from sam_audio_jax.data.labels import INDEX, SCORES
from sam_audio_jax.data.recording import Recording, Song, recording_line, song_line
from sam_audio_jax.data.source import read_source
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_jsonl, whole_folder, write_jsonl
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.label.group_labels import GroupLabeller
from sam_audio_jax.label.label_inputs import read_inputs
from sam_audio_jax.label.label_settings import LabelSettings
from sam_audio_jax.label.labelling import label, make_plan
from sam_audio_jax.label.members import Member, SolvedMember
from sam_audio_jax.label.network_scores import LabelNetworks
from sam_audio_jax.label.prompt_kinds import KINDS
from sam_audio_jax.train.config import TrainConfig
from tools import experiment, label_loop_page

ARMS = ("half", "all", "filtered", "random", "true")
FILTERS = ("silence", "remix", "agreement_noise")
MIXTURES = 8  # generator (seed, MIXTURES, number) of the mixtures of the second half
HALVES = 9  # generator (seed, HALVES) of the division
Line = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """One experiment: its folder and its options, which every call for the folder must share."""

    out: pathlib.Path
    config: str
    sources: tuple[str, ...]
    bench: str
    flags: tuple[str, ...]  # fields of the config, for every training
    first_steps: int
    further_steps: int
    cached: int  # mixtures of the first half
    labelled: int  # mixtures of the second half
    seeds: int
    prompts: str
    refine: str | None
    filters: tuple[str, ...]
    label_share: float
    scorers: tuple[str, ...]  # of the evaluations, as `sam-audio evaluate --scorers` reads them
    limit: int | None  # of held-out mixtures
    seed: int

    def claim(self) -> None:
        """Writes the options. Raises UserError for a folder of another experiment."""
        experiment.claim(self.out, "loop.json", dataclasses.asdict(self))

    @property
    def thresholds(self) -> dict[str, float]:
        """The filters and their usual thresholds."""
        return {name: LABEL_SCORES[name].threshold for name in self.filters}

    @property
    def half(self) -> list[str]:
        """The flags that name the first half."""
        return ["--data.source.manifests", str(self.out / "first" / "manifest.jsonl")]

    def arms(self) -> Iterator[tuple[str, int, pathlib.Path]]:
        """Arm, seed and workdir of each training."""
        for seed in range(self.seeds):
            for arm in ARMS:
                yield arm, seed, self.out / "arms" / f"{arm}-{seed}"


def divide(loop: Loop) -> None:
    """Writes the two halves as manifests; no source is in both, and no song is cut."""
    recordings, songs, _ = read_source(SourceConfig(manifests=tuple(loop.sources)))
    group_of = groups(recordings, songs)
    names = sorted(set(group_of.values()))
    order = np.random.default_rng((loop.seed, HALVES)).permutation(len(names))
    first = {names[number] for number in order[: len(names) // 2]}
    for name, wanted in (("first", True), ("second", False)):
        folder = loop.out / name
        if (folder / "manifest.jsonl").is_file():
            continue
        lines = [
            line_of(one) for one in recordings if (group_of[one.part, one.id] in first) == wanted
        ]
        parts = [
            song_line(
                dataclasses.replace(
                    song, stems=tuple(unique_id(song.part, stem) for stem in song.stems)
                )
            )
            for song in songs
            if any(
                (group_of[key] in first) == wanted
                for stem in song.stems
                if (key := (song.part, stem)) in group_of
            )
        ]
        if parts:
            write_jsonl(folder / "songs.jsonl", parts)
        write_jsonl(folder / "manifest.jsonl", lines)


def groups(recordings: Sequence[Recording], songs: Sequence[Song]) -> dict[tuple[int, str], str]:
    """What must stay together, by part and id: the recordings of a source and the stems of a song.

    A song whose stems are of several sources joins these sources.
    """
    source_of = {(one.part, one.id): one.source_id for one in recordings}
    above: dict[str, str] = {}

    def root(source: str) -> str:
        while source in above:
            source = above[source]
        return source

    for song in songs:
        keys = [key for stem in song.stems if (key := (song.part, stem)) in source_of]
        for one in keys[1:]:
            joined, to = sorted((root(source_of[one]), root(source_of[keys[0]])), reverse=True)
            if joined != to:
                above[joined] = to
    return {key: root(source) for key, source in source_of.items()}


def unique_id(part: int, name: str) -> str:
    """An id in the one manifest of a half, which recordings of several sources share."""
    return f"{part}:{name}" if part else name


def line_of(one: Recording) -> Line:
    """The line of a recording in a manifest of any folder."""
    paths = {
        name: str(pathlib.Path(path).absolute())
        for name in ("path", "video", "video_features", "mask")
        if (path := getattr(one, name)) is not None
    }
    return recording_line(dataclasses.replace(one, part=0, id=unique_id(one.part, one.id), **paths))


def render(loop: Loop) -> None:
    """Writes the mixtures of the second half as recordings with a caption, and their true targets.

    They have spans only if the model is prompted by spans.
    """
    folder = loop.out / "mixtures"
    if folder.exists():
        return
    manifest = str(loop.out / "second" / "manifest.jsonl")
    cfg: TrainConfig = config.from_cli(
        [loop.config, *loop.flags, "--data.source.manifests", manifest], TrainConfig
    )
    rate = cfg.codec.sample_rate
    mixer = pipeline.mixer(cfg.data, rate, cfg.codec.hop)
    by_span = "span" in loop.prompts.split("+")
    with whole_folder(folder) as part:
        lines = []
        for number in range(loop.labelled):
            mixture = mixer.draw(np.random.default_rng((loop.seed, MIXTURES, number)))
            name = f"{number:06d}"
            for stem, wave in (("mixture", mixture.mixture), ("target", mixture.target)):
                audio.write_wav(part / f"{name}.{stem}.wav", wave[None], rate)
            active = mixture.activities(rate, cfg.codec.hop)[0]
            spans = label_loop_page.spans_of(active, rate / cfg.codec.hop) if by_span else []
            lines.append(
                {
                    "id": name,
                    "path": f"{name}.mixture.wav",
                    "caption": mixture.target_texts[0],
                    "alt_captions": list(mixture.target_texts[1:]),
                    "spans": spans,
                    "category": mixture.category.split("/")[0],
                    "true_target": f"{name}.target.wav",
                }
            )
        write_jsonl(part / "manifest.jsonl", lines)


class TrueLabeller(GroupLabeller):
    """Labels mixtures with their true stems: the same mixtures and prompts, perfect labels."""

    def solve(self, group: Any, members: Sequence[Member]) -> list[SolvedMember | None]:
        solved: list[SolvedMember | None] = []
        for one in members:
            if one.true_target is None:
                raise UserError(f"{one.source.id} has no true_target")
            solved.append(SolvedMember(one, one.true_target, one.item.wave - one.true_target))
        return solved


def label_truly(loop: Loop) -> None:
    """Writes the folder of labels that have the true stems."""
    out = loop.out / "true"
    if (out / INDEX).is_file():
        return
    checkpoint = str(loop.out / "start")
    manifest = read_inputs(loop.out / "mixtures" / "manifest.jsonl")
    settings = LabelSettings(prompts=loop.prompts, scores=("silence",))
    model = SAMAudio.from_pretrained(checkpoint)
    labeller = TrueLabeller(model, settings, LabelNetworks(), "true stems")
    label(labeller, manifest, out, make_plan(labeller, manifest))


def train(loop: Loop, workdir: pathlib.Path, steps: int, flags: Sequence[str]) -> None:
    """Trains in a workdir up to `steps`, from where it was stopped."""
    common = [*loop.flags, *loop.half, "--data.cache", str(loop.out / "latents")]
    experiment.train(loop.config, workdir, steps, [*common, *flags])


def arm_flags(loop: Loop, arm: str, passing: int) -> list[str]:
    """The flags that make an arm; `passing` labels pass the filters."""
    if arm == "half":
        return []
    folder = loop.out / ("true" if arm == "true" else "labels")
    flags = ["--data.labels.folder", str(folder), "--data.labels.share", str(loop.label_share)]
    if arm == "random":
        flags += ["--data.labels.most", str(passing)]
    if arm == "filtered":
        for name, threshold in loop.thresholds.items():
            flags += [f"--data.labels.{name.replace('_', '-')}", str(threshold)]
    return flags


def count_passing(loop: Loop) -> int:
    """The number of labels that pass the filters. Raises UserError if there is none."""
    entries = read_jsonl(loop.out / "labels" / SCORES)
    labels = [entry for entry in entries if "scores" in entry]
    passing = sum(not failing(one["scores"], loop.thresholds, one["id"]) for one in labels)
    if not passing:
        raise UserError(
            f"none of {len(labels)} labels passes {', '.join(loop.filters)}: train the first model "
            "longer, or name other filters"
        )
    return passing


def evaluate(loop: Loop, checkpoint: pathlib.Path, name: str) -> None:
    """Evaluates a checkpoint on the held-out mixtures."""
    scorers = ["--scorers", *loop.scorers] if loop.scorers else []
    experiment.evaluate(
        checkpoint,
        loop.bench,
        loop.out / "eval" / name,
        label_loop_page.PROMPTS,
        limit=loop.limit,
        flags=scorers,
    )


def execute(loop: Loop, jobs: int = 1) -> None:
    """All steps, but for those that an earlier call has finished; `jobs` arms at a time."""
    loop.claim()
    divide(loop)
    if not (loop.out / "latents" / "cache.json").is_file():
        cache = ["--out", str(loop.out / "latents"), "--items", str(loop.cached)]
        experiment.run(["prepare", loop.config, *cache, *loop.flags, *loop.half])
    train(loop, loop.out / "start", loop.first_steps, ["--seed", str(loop.seed)])
    render(loop)
    if not (loop.out / "labels" / INDEX).is_file():
        refine = ["--refine", loop.refine] if loop.refine else []
        arguments = ["--checkpoint", str(loop.out / "start"), "--prompts", loop.prompts, *refine]
        manifest = str(loop.out / "mixtures" / "manifest.jsonl")
        experiment.run(["label", manifest, "--out", str(loop.out / "labels"), *arguments])
    label_truly(loop)
    passing = count_passing(loop)
    evaluate(loop, loop.out / "start", "start")
    start = ["--init-from", str(loop.out / "start")]

    def complete(arm: str, seed: int, workdir: pathlib.Path) -> None:
        seeds = ["--seed", str(seed + 1), "--data.seed", str(seed + 1)]
        train(loop, workdir, loop.further_steps, [*start, *seeds, *arm_flags(loop, arm, passing)])
        evaluate(loop, workdir, workdir.name)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(complete, *one) for one in loop.arms()]
        try:
            for one in concurrent.futures.as_completed(waiting):
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    label_loop_page.write(loop.out, dataclasses.asdict(loop), ARMS, loop.seeds)
    print(f"report: {loop.out / label_loop_page.PAGE}", file=sys.stderr)


def read_options(argv: list[str]) -> tuple[Loop, int]:
    """The experiment and the number of jobs; what is left are flags of the config."""
    parser = config.ArgumentParser(
        __doc__,
        command="label-loop",
        epilog="Every other --FIELD VALUE overrides a field of the config, in all trainings.",
    )
    add = parser.add_argument
    add("--config", default="tiny@words", help="of all trainings")
    add("--source", action="append", default=[], help="folder with a manifest.jsonl; may repeat")
    add("--bench", default="embedded", help="held-out mixtures: embedded, or a folder")
    add("--out", type=config.local_folder, required=True)
    add("--first-steps", type=at_least(1), default=20_000, help="of the model that labels")
    add("--further-steps", type=at_least(1), default=5_000, help="of each arm")
    add("--cached", type=at_least(1), default=3_000, help="mixtures of the first half")
    add("--labelled", type=at_least(1), default=2_000, help="mixtures of the second half")
    add("--seeds", type=at_least(1), default=3)
    add("--prompts", default="text", choices=KINDS, help="by which mixtures are labelled")
    add("--refine", choices=("wiener",), help="of the labels")
    add("--filters", nargs="+", default=FILTERS, choices=LABEL_SCORES, metavar="NAME")
    add("--label-share", type=float, default=0.5, help="of the examples of an arm with labels")
    add("--scorers", nargs="+", default=(), metavar="NAME=PATH", help="of the evaluations")
    add("--limit", type=at_least(1), help="so many held-out mixtures")
    add("--seed", type=at_least(0), default=0)
    add("--jobs", type=at_least(1), default=1, help="arms at a time, each in processes of its own")
    args, flags = parser.parse_known_args(argv)
    sources = tuple(str(pathlib.Path(one) / "manifest.jsonl") for one in args.source)
    LabelConfig(share=args.label_share)
    names = {field.name for field in dataclasses.fields(Loop)} - {"sources", "flags"}
    fields = {name: getattr(args, name) for name in names}
    fields |= {name: tuple(fields[name]) for name in ("filters", "scorers")}
    return Loop(sources=sources, flags=tuple(flags), **fields), args.jobs


@command
def main(argv: list[str]) -> None:
    """Runs, or continues, one experiment."""
    execute(*read_options(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
