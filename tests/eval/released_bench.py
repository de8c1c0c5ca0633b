"""A small copy of SAM Audio-Bench in the released layout, of recordings that the package ships."""

import io
import pathlib

import numpy as np
import pyarrow
import pyarrow.parquet

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, vision_table
from sam_audio_jax.data import source
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.eval.sam_audio_bench.settings import SETTINGS
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.video.muxing import mux
from tests import tiny
from tests.video.clips import write as write_video

VISION = VisionConfig(
    image_size=8, patch_size=4, width=16, depth=1, heads=2, mlp=24, output=4, pool_heads=2
)
RATE = 16_000
FRAME_RATE = 10
HEIGHT, WIDTH = 24, 32
VALUES = [one.value for one in SETTINGS.values() if one.value]
MISSING, BROKEN = "absent-clip", "broken_clip"


def sounds(count: int, seconds: float) -> list[np.ndarray]:
    """The beginnings of recordings that are long enough, at `RATE`, none of them silent."""
    found = []
    for recording in source.load_manifest(source.embedded()):
        if recording.duration > seconds and recording.category in ("speech", "music"):
            loaded = audio.load(recording.path)
            wave = audio.resample(audio.mono(loaded.samples), loaded.sample_rate, RATE)
            wave = wave[: round(seconds * RATE)]
            if np.square(wave[-RATE // 2 :]).mean() > 1e-6:
                found.append(wave)
        if len(found) == count:
            return found
    raise AssertionError("not enough recordings")


def packed_masks(count: int, height: int, width: int) -> bytes:
    """The left half is the object, as a compressed NumPy file."""
    masks = np.zeros((count, height, width), np.uint8)
    masks[:, :, : width // 2] = 1
    file = io.BytesIO()
    np.savez_compressed(file, video_masklet=masks)
    return file.getvalue()


def write_clip(path: pathlib.Path, wave: np.ndarray) -> None:
    """A video of grey pictures, the brightness of which rises, with this sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(len(wave) / RATE * FRAME_RATE)
    levels = np.linspace(60, 250, count).astype(np.uint8)
    shape = (count, HEIGHT, WIDTH, 3)
    silent = path.with_name(f"{path.stem}.silent.mp4")
    write_video(silent, np.broadcast_to(levels[:, None, None, None], shape), rate=FRAME_RATE)
    mux(silent, wave[None], RATE, path)
    silent.unlink()


def row(video_id: str, start: float, **fields) -> dict:
    """A row of the table for one second of a video, in every setting that has clips."""
    values = {
        "video_id": video_id,
        "source_dataset": "VGGSound",
        "start_offset": start,
        "end_offset": start + 1.0,
        "description": "person speaking",
        "spans": [[0.1, 0.6]],
        "mask_bytes": packed_masks(7, 12, 16),
        "paper_eval_sets": VALUES,
        "unused": 1,
    }
    return values | fields


def make_bench(folder: pathlib.Path) -> pathlib.Path:
    """Tables, songs, clips under the four patterns of names; two are missing or broken."""
    waves = sounds(3, 2.0)
    media = folder / "VGGSound"
    write_clip(media / "-whole.mp4", waves[0])
    second = [wave[:RATE] for wave in waves]
    write_clip(media / "a_b_500_1500.mp4", second[1])
    write_clip(media / "c_2_3.mp4", second[2])
    write_clip(folder / "d.00000000_00001000.mp4", second[0][::-1])
    (media / f"{BROKEN}.mp4").write_bytes(b"no video")
    rows = [
        row("-whole", 0.5),
        row("a_b", 0.5, description="piano playing"),
        row("c", 2.0, paper_eval_sets=VALUES[:8]),
        row("d", 0.0, paper_eval_sets=VALUES[:5], mask_bytes=None),
        row(MISSING, 0.0, paper_eval_sets=VALUES[:1]),
        row(BROKEN, 0.0, paper_eval_sets=VALUES[:2]),
    ]
    write_table(folder / "data" / "test-00000-of-00001.parquet", rows)
    song = folder / "musdb18hq" / "test" / "A - B"
    stems = {"bass": second[1], "drums": second[2], "vocals": 0 * second[0]}
    mixture = sum(stems.values()) + 0.1 * second[0]
    for name, wave in (*stems.items(), ("mixture", mixture)):
        audio.write_wav(song / f"{name}.wav", np.stack([wave, 0.9 * wave]), RATE)
    times = {"id": "A - B", "start_time": 0.0, "end_time": 1.0}
    songs = [times | {"description": name} for name in ("bass", "drums", "vocals")]
    write_table(folder / "musdb.parquet", songs)
    return folder


def write_table(path: pathlib.Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def save_model(path: pathlib.Path, networks: tuple) -> None:
    """A checkpoint folder of codec, separator and tokenizer, with a vision tower."""
    codec, prompted, _ = networks
    tower = tiny.filled(lambda: VisionEncoder(VISION, rngs=Rngs(0)))
    stored = vision_table(VISION).stored(tower)
    rest = {SAM_AUDIO_PREFIX + name: tensor for name, tensor in stored.items()}
    save_folder(path, codec, prompted, "byt5", {"vision": to_dict(VISION), "rest": rest})


OPTIONS = {"batch": 4, "listen": 0, "progress": False}  # of evaluations


class LevelScorer:
    """Needs a kind of prompt and gives the level of a candidate, or the light of a video."""

    def __init__(self, needs, axes):
        self.needs, self.axes, self.views = needs, axes, []

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        assert all(view.has(self.needs) for view in prompts)
        self.views += prompts
        power = np.square(candidates).mean(axis=2)
        if self.needs == "video":
            frames = [np.concatenate(list(view.video(np.arange(4) / 4))) for view in prompts]
            lights = [(one > 20).mean() + 0 * power[0] for one in frames]
            return {self.axes[0]: np.stack(lights)}
        return {axis: power + number for number, axis in enumerate(self.axes)}


def make_networks():
    """Codec, separator and tokenizer, filled with numbers."""
    prompted = tiny.filled(lambda: PromptedSeparator(tiny.TEXT, tiny.SEPARATOR, rngs=Rngs(0)))
    codec = tiny.filled(lambda: Codec(tiny.CODEC, rngs=Rngs(0)))
    codec.decoder.out.scale[...] *= 0.1
    return codec, prompted, tokenizer_for("byt5")


def seeing(networks, **settings):
    """A model with a vision tower."""
    tower = tiny.filled(lambda: VisionEncoder(VISION, rngs=Rngs(0)))
    sampler = SamplerConfig(method="euler", steps=1)
    return SAMAudio(*networks, sampler=sampler, vision=tower, **settings)
