"""How many training examples one core makes, by where their sound or latents come from.

Rates are by the CPU time of the process that makes the examples, all threads together: that of one
core that does nothing else, also on a machine that does.
"""

import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import soundfile

from sam_audio_jax.data import pipeline, shards
from sam_audio_jax.data.config import DataConfig, MixConfig, SourceConfig
from sam_audio_jax.files import write_jsonl

RATE, HOP, CHANNELS = 48_000, 1_920, 128  # of the released codec
RECORDINGS, RECORDING_S = 12, 60.0
WARM = 3  # calls before the clock runs
BATCH = 32
ROUNDS, LEAST_S = 5, 0.8  # rounds, of which the median counts, and CPU seconds of each at least
HEADER = (
    "| examples from | length | examples/s and core | x real time | read |\n|---|---|---|---|---|"
)
# What the rows are called -> format, subtype and rate of the files; None: decoded before.
SOUNDS = {
    "FLAC, 48 kHz": ("FLAC", "PCM_16", 48_000),
    "FLAC, 44.1 kHz, resampled": ("FLAC", "PCM_16", 44_100),
    "Opus, 48 kHz": ("OGG", "OPUS", 48_000),
    "Opus, 24 kHz, resampled": ("OGG", "OPUS", 24_000),
    "decoded before (16-bit file)": None,
}
LENGTHS_S = (10.0, 30.0)


@dataclasses.dataclass(frozen=True)
class ExampleRate:
    """Examples of one kind, by the CPU time of one core."""

    per_second: float
    seconds: float  # of one example
    bytes_read: float  # of each example, from files; 0: not counted

    def row(self, name: str) -> str:
        """The row of the table."""
        read = f"{self.bytes_read / 1e6:.2f} MB" if self.bytes_read else ""
        return (
            f"| {name} | {self.seconds:g} s | {self.per_second:.1f} | "
            f"{self.per_second * self.seconds:.0f} | {read} |"
        )


def rows(lengths_s: tuple[float, ...] = LENGTHS_S) -> Iterator[str]:
    """Yields the lines of the table; everything is written to a temporary folder, and removed."""
    yield HEADER
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with mock.patch.dict(os.environ, {"SAM_AUDIO_CACHE": str(folder / "cache")}):
            for sounds, written in SOUNDS.items():
                source = write_source(folder / sounds, written or SOUNDS["FLAC, 48 kHz"])
                source = dataclasses.replace(source, streamed=written is not None)
                for seconds in lengths_s:
                    yield measure(mixed(source, seconds), seconds).row(sounds)
            source = tfds_source(folder / "tfds")
            for seconds in lengths_s:
                yield measure(mixed(source, seconds), seconds).row("TFDS, 16-bit samples, 48 kHz")
            for seconds in lengths_s:
                config, size = latents(folder / f"latents {seconds}", source, seconds)
                rate = measure(pipeline.examples(config, RATE, HOP), seconds)
                yield dataclasses.replace(rate, bytes_read=size).row("latents")
                rate = measure_batches(config, seconds)
                yield dataclasses.replace(rate, bytes_read=size).row(f"latents, batches of {BATCH}")


def measure(examples: Any, seconds: float) -> ExampleRate:
    """The rate at which a list makes its examples, one after another."""
    return ExampleRate(calls_per_second(examples.__getitem__), seconds, 0.0)


def measure_batches(config: DataConfig, seconds: float) -> ExampleRate:
    """The rate at which training gets its examples: in batches, which a thread makes."""
    batches = pipeline.separation_batches(config, RATE, HOP, BATCH)
    rate = BATCH * calls_per_second(lambda _: next(batches))
    batches.close()
    return ExampleRate(rate, seconds, 0.0)


def calls_per_second(call: Callable[[int], Any]) -> float:
    """Calls with rising numbers in a second of CPU time: the median of some rounds."""
    for number in range(WARM):
        call(number)
    rates, first = [], WARM
    for _ in range(ROUNDS):
        count, start = 0, time.process_time()
        while (spent := time.process_time() - start) < LEAST_S:
            call(first + count)
            count += 1
        rates.append(count / spent)
        first += count
    return float(np.median(rates))


def mixed(source: SourceConfig, seconds: float) -> Any:
    """Examples that are mixed as they are read, with the default rules for two effects."""
    mix = MixConfig(seconds=seconds, recipes=(("sfx", "sfx", 1.0),))
    return pipeline.examples(DataConfig(source=source, mix=mix), RATE, HOP)


def tone(number: int, rate: int) -> np.ndarray:
    """A minute of noise under a slow envelope and a tone: as hard to encode as music."""
    rng = np.random.default_rng(number)
    time_s = np.arange(int(RECORDING_S * rate)) / rate
    noise = 0.1 * rng.standard_normal(len(time_s)) * np.sin(0.7 * time_s + number) ** 2
    return (noise + 0.2 * np.sin(2 * np.pi * (150 + 40 * number) * time_s)).astype(np.float32)


def write_source(folder: pathlib.Path, written: tuple[str, str, int]) -> SourceConfig:
    """A manifest of a dozen recordings of a minute, in one format."""
    container, subtype, rate = written
    folder.mkdir(parents=True)
    lines = []
    for number in range(RECORDINGS):
        path = folder / f"{number}.{container.lower()}"
        soundfile.write(path, tone(number, rate), rate, format=container, subtype=subtype)
        lines.append(line(number) | {"path": path.name})
    write_jsonl(folder / "manifest.jsonl", lines)
    return SourceConfig(manifests=(str(folder / "manifest.jsonl"),))


def line(number: int) -> dict[str, Any]:
    """What a manifest says about a recording."""
    return {
        "id": f"tone {number}",
        "caption": f"machine {number} humming",
        "category": "sfx",
        "source_id": f"source {number}",
        "duration": RECORDING_S,
    }


def tfds_source(folder: pathlib.Path) -> SourceConfig:
    """The same recordings as a data set of TFDS."""
    # Imported here because it takes seconds, which no other part should wait for.
    import tensorflow_datasets as tfds

    def info(builder: Any) -> Any:
        features = {"audio": tfds.features.Tensor(shape=(None,), dtype=np.int16)}
        features["caption"] = tfds.features.Text()
        return tfds.core.DatasetInfo(builder=builder, features=tfds.features.FeaturesDict(features))

    def generate(_: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(RECORDINGS):
            samples = (32_767 * tone(number, RATE)).astype(np.int16)
            yield number, {"audio": samples, "caption": line(number)["caption"]}

    members = {
        "VERSION": tfds.core.Version("1.0.0"),
        "code_path": None,
        "_info": info,
        "_split_generators": lambda self, manager: {"train": generate(self)},
        "_generate_examples": generate,
    }
    builder = type("BenchTones", (tfds.core.GeneratorBasedBuilder,), members)(
        data_dir=folder, file_format="array_record"
    )
    builder.download_and_prepare()
    fields = (("sound", "audio"), ("caption", "caption"), ("sample_rate", f"={RATE}"))
    return SourceConfig(tfds=(str(builder.data_path),), tfds_fields=fields)


def latents(folder: pathlib.Path, source: SourceConfig, seconds: float) -> tuple[DataConfig, float]:
    """A cache of random latents of the released size: its config, and the bytes of a record."""
    samples = round(seconds * RATE / HOP) * HOP
    mix = MixConfig(seconds=seconds, recipes=(("sfx", "sfx", 1.0),))
    config = DataConfig(source=source, mix=mix, cache=str(folder))
    rng = np.random.default_rng(0)

    def encode(waves: np.ndarray) -> np.ndarray:
        shape = len(waves), waves.shape[1] // HOP, CHANNELS
        return rng.standard_normal(shape, np.float32)

    mixture = drawn(config)
    shards.write_cache(
        folder,
        lambda number: mixture,
        encode,
        items=64,
        sample_rate=RATE,
        hop=HOP,
        samples=samples,
        codec="random",
        recipe=pipeline.recipe(config),
    )
    size = sum(path.stat().st_size for path in folder.glob("*.arrayrecord")) / 64
    return config, size


def drawn(config: DataConfig) -> Any:
    """One mixture of the source."""
    mixer = pipeline.mixer(dataclasses.replace(config, cache=""), RATE, HOP)
    return mixer.draw(np.random.default_rng(0))
