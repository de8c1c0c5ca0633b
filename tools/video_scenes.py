"""Composes clips in which two objects move over a background, each of them with its own sound.

`python -m tools.video_scenes --source DIR [--source DIR ...] --out DIR [--count 400]`

Each source DIR holds a manifest.jsonl; the pictures are those that its training recordings have as
`image`, by their captions, or with `--unseen STAMPS` those of tools/unseen_pictures.json in the
folder STAMPS, which no training recording has. The new folder gets, for every scene, a video, and
for each of its two objects a mask and its sound alone, as a line of manifest.jsonl: the sum of both
sounds is that of the scene. `sam-audio prepare --vision-checkpoint` and `python -m
tools.video_follows` read it. The same folders, count and seed give the same scenes.
"""

import argparse
import collections
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import av
import numpy as np
import soundfile
from jaxtyping import UInt8

from sam_audio_jax import audio, config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data import energy, likeness
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.source import load_manifest
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.files import read_object, whole_folder, write_jsonl
from sam_audio_jax.progress_bar import progress_bar
from tools.scene_pictures import Scene
from tools.scene_pictures import read_object as read_picture

COUNT, SEED = 400, 12
SECONDS, FRAME_RATE, SAMPLE_RATE = 4, 5, 16_000
REST_S = 0.3  # shortest pause between the sounds of an object
LONGEST_SHARE = 0.6  # of a scene, of one sound
MOST_SOUNDS = 3  # of an object
LEVEL_DB, SNR_DB, PEAK = -26.0, 5.0, 0.9  # active level of the first object; plus or minus
TRIES = 500  # draws of a second object
KINDS = ("sfx", "instrument")
UNSEEN = pathlib.Path(__file__).with_name("unseen_pictures.json")
ENCODER = {"flags": "+qscale", "qscale": "3"}  # of MPEG-4; x264 gives other bytes in each call
NAMES = "ab"  # of the two objects of a scene

Pictures = Mapping[str, Sequence[pathlib.Path]]  # by caption
Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Actor:
    """An object of a scene: what is seen, and what sounds."""

    recording: Recording
    picture: pathlib.Path


def known_pictures(manifests: Sequence[str]) -> Pictures:
    """The pictures of the training recordings."""
    found: dict[str, dict[pathlib.Path, None]] = collections.defaultdict(dict)
    for manifest in manifests:
        for one in of_split(manifest, "train"):
            if one.image is not None and one.category in KINDS:
                found[one.caption][(pathlib.Path(manifest).parent / one.image).resolve()] = None
    if not found:
        raise UserError(f"no training recording of {', '.join(manifests)} has an image")
    return {caption: tuple(paths) for caption, paths in found.items()}


def unseen_pictures(stamps: pathlib.Path) -> Pictures:
    """Other pictures of the same classes, which no training recording has."""
    found: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for name, caption in read_object(UNSEEN).items():
        if not (stamps / name).is_file():
            raise UserError(f"--unseen {stamps} has no {name}: it must be the stamps of Tux Paint")
        found[caption].append(stamps / name)
    return found


class Composer:
    """Draws scenes of recordings that have a picture; all randomness is of one generator."""

    def __init__(self, recordings: Sequence[Recording], pictures: Pictures, seed: int):
        self.pictures, self.rng = pictures, np.random.default_rng(seed)
        self.captions: dict[str, list[Recording]] = collections.defaultdict(list)
        for one in recordings:
            if one.category in KINDS and one.caption in pictures:
                self.captions[one.caption].append(one)
        if len(self.captions) < 2:
            raise UserError(f"{len(self.captions)} captions have a picture; two or more are needed")

    def actors(self, number: int) -> tuple[Actor, Actor]:
        """The objects of a scene: of caption `number`, counted around, and of another one."""
        names = sorted(self.captions)
        first = self._actor(names[number % len(names)])
        for _ in range(TRIES):
            second = self._actor(names[int(self.rng.integers(len(names)))])
            if not _alike(first, second):
                return first, second
        raise UserError(f"no second object differs from {first.recording.caption!r}")

    def _actor(self, caption: str) -> Actor:
        recordings, pictures = self.captions[caption], self.pictures[caption]
        recording = recordings[int(self.rng.integers(len(recordings)))]
        return Actor(recording, pictures[int(self.rng.integers(len(pictures)))])

    def stems(self, actors: Sequence[Actor]) -> list[Wave]:
        """The sound of each object, at its level in the scene."""
        waves = [lay_out(load(actor.recording.path), self.rng) for actor in actors]
        levels = LEVEL_DB, LEVEL_DB - self.rng.uniform(-SNR_DB, SNR_DB)
        for wave, level in zip(waves, levels, strict=True):
            wave *= np.float32(10 ** (level / 20) / max(energy.active_rms(wave, SAMPLE_RATE), 1e-6))
        gain = min(1.0, PEAK / float(np.abs([*waves, waves[0] + waves[1]]).max()))
        return [wave * np.float32(gain) for wave in waves]


def _alike(one: Actor, other: Actor) -> bool:
    """Whether two objects are one for the eye or for the ear."""
    a, b = one.recording, other.recording
    same = one.picture == other.picture or a.source_id == b.source_id
    return same or likeness.may_be_same(a.caption, b.caption)


@functools.lru_cache(maxsize=512)
def load(path: str) -> Wave:
    """A recording at the rate of the scenes, its channels mixed down."""
    sound = audio.load(path)
    return audio.resample(sound.samples, sound.sample_rate, SAMPLE_RATE).mean(axis=0)


def lay_out(wave: Wave, rng: np.random.Generator) -> Wave:
    """One to three times the same sound with silence around and between them."""
    samples, rest = SECONDS * SAMPLE_RATE, int(REST_S * SAMPLE_RATE)
    wave = wave[: int(LONGEST_SHARE * samples)]
    most = max(1, min(MOST_SOUNDS, (samples + rest) // (len(wave) + rest)))
    count = int(rng.integers(1, most + 1))
    free = samples - count * len(wave) - (count - 1) * rest
    starts = np.sort(rng.integers(free + 1, size=count)) + np.arange(count) * (len(wave) + rest)
    laid_out = np.zeros(samples, np.float32)
    for start in starts:
        laid_out[start : start + len(wave)] += wave
    return laid_out


def write_video(path: pathlib.Path, frames: UInt8[np.ndarray, "count size size 3"]) -> None:
    """Writes a silent video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAME_RATE, options=ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_scene(composer: Composer, number: int, split: str, out: pathlib.Path) -> list[Line]:
    """Writes the files of one scene into `out`; the lines of its two objects."""
    actors, scene = composer.actors(number), f"{number:05d}"
    stems = composer.stems(actors)
    drawn = Scene.draw([read_picture(actor.picture) for actor in actors], composer.rng)
    frames, visible = drawn.frames(SECONDS * FRAME_RATE)
    write_video(out / f"{scene}.mp4", frames)
    lines = []
    for name, actor, wave, mask in zip(NAMES, actors, stems, visible, strict=True):
        recording = actor.recording
        soundfile.write(out / f"{scene}{name}.flac", wave, SAMPLE_RATE)
        np.savez_compressed(out / f"{scene}{name}.npz", mask=mask)
        lines.append(
            {
                "id": f"{scene}{name}",
                "scene": scene,
                "path": f"{scene}{name}.flac",
                "video": f"{scene}.mp4",
                "mask": f"{scene}{name}.npz",
                "caption": recording.caption,
                "alt_captions": list(recording.alt_captions),
                "category": recording.category,
                "source_id": recording.source_id,
                "duration": float(SECONDS),
                "split": split,
                "license": recording.license,
                "recording": recording.id,
                "picture": actor.picture.stem,
            }
        )
    return lines


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="video_scenes")
    parser.add_argument("--source", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--out", type=config.local_folder, required=True)
    parser.add_argument("--split", choices=("train", "valid"), default="train")
    parser.add_argument("--unseen", type=pathlib.Path, help="folder of the stamps of Tux Paint")
    parser.add_argument("--count", type=at_least(1), default=COUNT, help="of scenes")
    parser.add_argument("--seed", type=at_least(0), default=SEED)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Writes the folder, whole or not at all, and says what is in it."""
    options = read_options(argv)
    manifests = [str(folder / "manifest.jsonl") for folder in options.source]
    pictures = unseen_pictures(options.unseen) if options.unseen else known_pictures(manifests)
    recordings = [one for path in manifests for one in of_split(path, options.split)]
    composer = Composer(recordings, pictures, options.seed)
    lines: list[Line] = []
    with whole_folder(options.out) as part:
        for number in progress_bar(range(options.count), desc="composing", unit="scene"):
            lines += write_scene(composer, number, options.split, part)
        write_jsonl(part / "manifest.jsonl", lines)
    found = {key: len({line[key] for line in lines}) for key in ("scene", "caption", "picture")}
    found["recording"] = len({line["recording"] for line in lines})
    print(", ".join(f"{number} {key}s" for key, number in found.items()))


def of_split(manifest: str, split: str) -> list[Recording]:
    """The recordings of one split of a manifest, which may have none of it."""
    return [one for one in load_manifest(manifest) if one.split == split]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
