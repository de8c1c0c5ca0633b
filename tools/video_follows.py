"""Whether a separation follows the object that the mask shows, on composed clips.

`python -m tools.video_follows MODEL SCENES [SCENES ...] [--limit N] [--exponent E] [--out FILE]`

SCENES are folders of `python -m tools.video_scenes`. The sum of a scene's two sounds is separated
by the mask of either object, without a prompt, and by either caption. For each folder the table has
the mean improvement of SI-SDR in dB for the right mask, the wrong one, none, and the right caption,
and `follows`: how often the right mask gives a stem that is nearer to the object's sound than the
wrong mask does. Intervals hold 95 % of means over resampled scenes: the two objects of a scene
count as one.
"""

import argparse
import collections
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax import audio, config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.eval.distances import si_sdr_improvement
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.eval.statistics import bootstrap, interval_text
from sam_audio_jax.files import read_jsonl, write_json
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.progress_bar import progress_bar

PROMPTS = ("right", "wrong", "none", "text", "wrong text")
FOLLOWS = {"follows": ("right", "wrong"), "text follows": ("text", "wrong text")}
BATCH = 8  # scenes separated at once

Scores = dict[str, float]  # of a scene, by column


@dataclasses.dataclass(frozen=True)
class Clip:
    """A scene of two objects: their sounds, and the files and words that prompt for them."""

    name: str
    stems: tuple[Wave, Wave]
    sample_rate: int
    video: str
    masks: tuple[str, str]
    captions: tuple[str, str]

    @property
    def mixture(self) -> Wave:
        return self.stems[0] + self.stems[1]


def load_clips(folder: pathlib.Path, limit: int | None = None) -> list[Clip]:
    """The scenes of a folder, in order."""
    scenes: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for line in read_jsonl(folder / "manifest.jsonl"):
        scenes[line["scene"]].append(line)
    clips = []
    for name, (one, other) in list(scenes.items())[:limit]:
        sounds = [audio.load(folder / line["path"]) for line in (one, other)]
        clips.append(
            Clip(
                name=name,
                stems=(sounds[0].samples[0], sounds[1].samples[0]),
                sample_rate=sounds[0].sample_rate,
                video=str(folder / one["video"]),
                masks=(str(folder / one["mask"]), str(folder / other["mask"])),
                captions=(one["caption"], other["caption"]),
            )
        )
    return clips


def separate(model: SAMAudio, clips: Sequence[Clip]) -> list[dict[str, Wave]]:
    """The targets of each scene, by prompt: "mask 0", "mask 1", "none", "text 0", "text 1"."""
    prompts: dict[str, dict[str, Any]] = {"none": {}}
    for number in (0, 1):
        masks = [clip.masks[number] for clip in clips]
        prompts[f"mask {number}"] = {"video": [clip.video for clip in clips], "mask": masks}
        prompts[f"text {number}"] = {"text": [clip.captions[number] for clip in clips]}
    found: list[dict[str, Wave]] = [{} for _ in clips]
    for name, prompt in prompts.items():
        mixtures, rate = [clip.mixture for clip in clips], clips[0].sample_rate
        stems = model.separate(
            mixtures, sample_rate=rate, refine="wiener", unprompted=name == "none", **prompt
        )
        for targets, one in zip(found, stems, strict=True):
            targets[name] = one.target
    return found


def score(clip: Clip, targets: Mapping[str, Wave]) -> Scores:
    """The columns of a scene: means over its two objects."""
    mixture = clip.mixture.astype(np.float64)
    rows = []
    for number, truth in enumerate(clip.stems):
        names = (f"mask {number}", f"mask {1 - number}", "none")
        names += (f"text {number}", f"text {1 - number}")
        gains = {
            prompt: float(
                si_sdr_improvement(
                    targets[name].astype(np.float64), truth.astype(np.float64), mixture
                )
            )
            for prompt, name in zip(PROMPTS, names, strict=True)
        }
        for column, (right, wrong) in FOLLOWS.items():
            gains[column] = float(gains[right] > gains[wrong])
        rows.append(gains)
    return {column: (rows[0][column] + rows[1][column]) / 2 for column in rows[0]}


def header() -> str:
    """The first two lines of the table."""
    columns = ("scenes", *PROMPTS, *FOLLOWS)
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def row(name: str, scores: Sequence[Scores]) -> str:
    """The line of a folder: means with their intervals."""
    cells = [f"{name} ({len(scores)})"]
    for column in (*PROMPTS, *FOLLOWS):
        form, unit = ("{:.0f} %", 100.0) if column in FOLLOWS else ("{:.1f}", 1.0)
        cells.append(interval_text(bootstrap([one[column] for one in scores]), form, unit))
    return f"| {' | '.join(cells)} |"


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="video_follows")
    parser.add_argument("model", help="a model folder with a vision tower")
    parser.add_argument("scenes", nargs="+", type=pathlib.Path)
    parser.add_argument("--limit", type=at_least(1), help="scenes of each folder; default: all")
    parser.add_argument("--exponent", type=float, help="of the mask; default: the model's")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of every scene's numbers")
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Prints the table, each line when its folder is measured."""
    options = read_options(argv)
    model = SAMAudio.from_pretrained(options.model)
    if options.exponent is not None:
        pipeline = model.pipeline
        pipeline.refinement = dataclasses.replace(pipeline.refinement, exponent=options.exponent)
    print(header())
    scored: dict[str, list[Scores]] = {}
    for folder in options.scenes:
        clips, scores = load_clips(folder, options.limit), []
        for begin in progress_bar(range(0, len(clips), BATCH), desc=folder.name, unit="batch"):
            batch = clips[begin : begin + BATCH]
            targets = separate(model, batch)
            scores += [score(clip, found) for clip, found in zip(batch, targets, strict=True)]
        scored[folder.name] = scores
        print(row(folder.name, scores), flush=True)
    if options.out:
        write_json(options.out, scored)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
