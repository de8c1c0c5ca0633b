"""Tables of ratings, by which a judge is trained, and batches of them (docs/scoring.md, "Judge").

A table is a JSONL or a Parquet file. Each line is one separated sound with what people, or a
formula, say of it:

    {"mixture": "1.wav", "separated": "1.sep.wav", "text": "dog barking", "domain": "sound",
     "system": "A", "ratings": {"overall": [4, 5, null], "recall": 4, "precision": []}}

Paths are relative to the table. A rating is a number or a list with one for each rater, where null
is a rater that gave none; an axis may be absent. `domain`, `system` and `id` are optional. In
Parquet the fields are columns, and `ratings` is a struct of numbers or lists.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from jaxtyping import Float, Float32

from sam_audio_jax import audio
from sam_audio_jax.bounds import Checked, Finite, Seconds, Seed, Size, Workers
from sam_audio_jax.config import FREE
from sam_audio_jax.data.encoded_sounds import EncodedSounds
from sam_audio_jax.data.excerpts import shuffled
from sam_audio_jax.data.pipeline import BatchStream
from sam_audio_jax.data.source import read_objects
from sam_audio_jax.encoders.text_form import has_words
from sam_audio_jax.encoders.tokenizer import PretrainedTokenizer, tokenizer_for
from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.scorers.judge import AXES, JudgeConfig
from sam_audio_jax.scorers.judge_inputs import judge_inputs, pair_frames

KEPT_CLIPS = 64  # decoded recordings that are kept in memory
KEPT_WEIGHTS = 10_000  # recordings whose mix of channels is
FIELDS = ("mixture", "separated", "text", "ratings", "domain", "system", "id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingsConfig(Checked, where="data"):
    """Tables of ratings and how their clips are cut; all values are ours."""

    table: str = ""  # of training
    valid_table: str = ""  # of evaluation; empty: no evaluation
    lowest: Finite = 1.0  # the raters' scale; ratings outside it are refused
    highest: Finite = 5.0
    # Longest part of a clip in a batch: a random one in training, the beginning in evaluation.
    seconds: Seconds = 10.0
    tokenizer: str = "byt5"  # of the judge's text model; empty: that of init_from
    # Whether texts are brought to the form of `text_form` first; the released judge's are not.
    normalizes_text: bool = False
    text_tokens: Size = 64  # of each text in a batch
    # A folder that keeps what the frozen parts of the judge make of every sound, so that it is
    # computed once; empty: at every update. Clips are cut to their beginning before it, so that
    # `seconds` should be their length.
    cache: str = ""
    workers: Workers = dataclasses.field(default=0, metadata=FREE)  # processes; 0: a thread
    seed: Seed = 0

    def __post_init__(self):
        super().__post_init__()
        if self.lowest >= self.highest:
            raise UserError(f"data.lowest={self.lowest} must be below data.highest={self.highest}")

    def frames(self, judge: JudgeConfig) -> int:
        """Frames of every clip in a batch."""
        return max(1, round(self.seconds * judge.sample_rate / judge.hop))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedPair:
    """One line of a table; paths are resolved."""

    id: str
    mixture: str
    separated: str
    text: str
    domain: str
    system: str
    ratings: dict[str, tuple[float, ...]]  # of all raters, by axis; axes without any are absent

    @property
    def target(self) -> Float32[np.ndarray, " axes"]:
        """The mean of the raters on each axis; NaN where there is none."""
        means = [np.mean(self.ratings[axis]) if axis in self.ratings else np.nan for axis in AXES]
        return np.array(means, np.float32)


def load_ratings(path: str, config: RatingsConfig) -> list[RatedPair]:
    """Reads and checks a table.

    Raises `UserError`, with file and line, for a line that is not JSON, a field that is missing,
    unknown or of the wrong type, a missing sound file, a rating outside the scale and a line
    without any rating; also for an empty table.
    """
    file = pathlib.Path(path)
    lines = _parquet_rows(file) if file.suffix == ".parquet" else read_objects(path)
    return [_pair(line, file, number, config) for number, line in lines]


def _parquet_rows(file: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a table, numbered from 1; columns of a row that are null are left out."""
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{file} cannot be read as Parquet: {first_line(error)}") from None
    if not rows:
        raise UserError(f"{file} has no rows")
    for row in rows:
        if isinstance(ratings := row.get("ratings"), dict):
            row["ratings"] = {axis: value for axis, value in ratings.items() if value is not None}
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return list(enumerate(kept, 1))


def _pair(
    line: dict[str, Any], path: pathlib.Path, number: int, config: RatingsConfig
) -> RatedPair:
    where = f"{path} line {number}"
    if unknown := sorted(set(line) - set(FIELDS)):
        raise UserError(f"{where}: unknown field {unknown[0]}, allowed are {', '.join(FIELDS)}")
    texts = {name: line.get(name, "") for name in FIELDS if name != "ratings"}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise UserError(f"{where}: field {name!r} must be a text, not {shown(value)}")
    if not has_words(texts["text"]):
        raise UserError(f"{where}: field 'text' is missing or has no words")
    for name in ("mixture", "separated"):
        sound = path.parent / texts[name]
        if not texts[name] or not os.path.isfile(sound):
            raise UserError(f"{where}: field {name!r}: no sound file at {sound}")
        texts[name] = str(sound)
    ratings = line.get("ratings")
    if not isinstance(ratings, dict) or set(ratings) - set(AXES):
        raise UserError(
            f"{where}: ratings must be an object of {', '.join(AXES)}, not {shown(ratings)}"
        )
    found = {axis: _raters(ratings[axis], f"{where}: {axis}", config) for axis in ratings}
    found = {axis: values for axis, values in found.items() if values}
    if not found:
        raise UserError(f"{where} has no rating on any axis")
    return RatedPair(**texts | {"id": texts["id"] or texts["separated"]}, ratings=found)


def _raters(value: Any, where: str, config: RatingsConfig) -> tuple[float, ...]:
    """The ratings of one axis, without those of raters that gave none."""
    values = value if isinstance(value, list) else [value]
    numbers = [one for one in values if one is not None]
    for one in numbers:
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise UserError(f"{where} must be a number or a list of numbers, not {shown(value)}")
        if not config.lowest <= one <= config.highest:
            raise UserError(
                f"{where} has the rating {shown(one)}; allowed are {config.lowest:g} to "
                f"{config.highest:g}"
            )
    return tuple(float(one) for one in numbers)


def check_sounds(pairs: Sequence[RatedPair], config: RatingsConfig, judge: JudgeConfig) -> None:
    """Raises `UserError`, with its id, for a pair that no batch can have, before any is made.

    That is one with a file that is no sound or has no samples, and one whose sounds do not fit each
    other. Of files whose structure shows their length only that is read. Behind the part that a
    batch can have, one may end a frame before the other.
    """
    most = config.frames(judge) * judge.hop

    @functools.cache
    def samples(path: str) -> int:
        known = audio.header_length(path)
        if known is None:
            loaded = audio.load(path)
            known = loaded.samples.shape[-1], loaded.sample_rate
        return -(-known[0] * judge.sample_rate // known[1])

    for pair in pairs:
        mixture, separated = samples(pair.mixture), samples(pair.separated)
        pair_frames(min(mixture, most), min(separated, most), judge, pair.id)
        if abs(mixture - separated) > judge.hop:
            raise UserError(
                f"{pair.id}: the mixture has {mixture} samples at {judge.sample_rate} Hz, the "
                f"separated sound {separated}; both must be of the same part of a recording"
            )


def check_tokenizer(config: RatingsConfig) -> None:
    """Raises `UserError` for a tokenizer that cannot be read."""
    _tokenizer(config.tokenizer, config.normalizes_text)


def rating_statistics(
    pairs: list[RatedPair],
) -> tuple[Float[np.ndarray, " axes"], Float[np.ndarray, " axes"]]:
    """Mean and standard deviation of the targets on each axis, by which a judge is scaled.

    Raises `UserError` for an axis that no pair rates, or on which all are equal.
    """
    targets = np.stack([pair.target for pair in pairs]).astype(np.float64)
    for axis, column in zip(AXES, targets.T, strict=True):
        rated = column[~np.isnan(column)]
        if not rated.size or not np.std(rated) > 0:
            raise UserError(
                f"{rated.size} of {len(pairs)} rated pairs have a rating for {axis}; there must be "
                "at least two that differ"
            )
    return np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)


class RatedExamples:
    """Random access to an endless list of examples: all pairs once per round, shuffled.

    An example has `mixture` and `separated` (float32 `[samples]`, or `[frames, width]` where
    `encoded` has the sounds), `valid` `[frames]`, `text_ids` and `text_mask` `[tokens]`, `ratings`
    `[axes]` on the raters' scale and `rated` `[axes]`, which is False where there is no rating. It
    is a function of (seed, index) alone.
    """

    def __init__(
        self,
        config: RatingsConfig,
        pairs: list[RatedPair],
        judge: JudgeConfig,
        encoded: EncodedSounds | None = None,
    ):
        self.config, self.pairs, self.judge, self.encoded = config, pairs, judge, encoded
        self.frames = config.frames(judge)

    def __len__(self) -> int:
        return 2**48

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        round_number, position = divmod(index, len(self.pairs))
        order = shuffled(self.config.seed, 0, round_number, len(self.pairs))
        return self.example(int(order[position]), np.random.default_rng((self.config.seed, index)))

    def example(self, number: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """One pair; without `rng` from its beginning on.

        Raises `UserError`, with its id, for sounds that cannot be read or do not fit each other.
        """
        pair = self.pairs[number]
        ids, mask = _tokenizer(self.config.tokenizer, self.config.normalizes_text)(
            [pair.text], self.config.text_tokens
        )
        if ids.max() >= self.judge.text.vocab_size:
            raise UserError(
                f"data.tokenizer={self.config.tokenizer} gave id {ids.max()}, but "
                f"judge.text.vocab_size={self.judge.text.vocab_size}"
            )
        target = pair.target
        rated = ~np.isnan(target)
        return (self._sounds if self.encoded is None else self._encoded)(pair, rng) | {
            "text_ids": ids[0],
            "text_mask": mask[0],
            "ratings": np.where(rated, target, 0).astype(np.float32),
            "rated": rated,
        }

    def _encoded(self, pair: RatedPair, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """The encoded beginning of both sounds."""
        del rng  # nothing is drawn
        assert self.encoded is not None
        mixture, separated = (self.encoded[path] for path in (pair.mixture, pair.separated))
        if len(mixture) != len(separated):
            raise UserError(
                f"{pair.id}: the mixture has {len(mixture)} frames, the separated sound "
                f"{len(separated)}"
            )
        rest = ((0, self.frames - len(mixture)), (0, 0))
        return {
            "mixture": np.pad(mixture, rest),
            "separated": np.pad(separated, rest),
            "valid": np.arange(self.frames) < len(mixture),
        }

    def _sounds(self, pair: RatedPair, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """A part of both waves; without `rng` their beginning."""
        hop = self.judge.hop
        paths, rate = (pair.mixture, pair.separated), self.judge.sample_rate
        sounds = [clip(path, rate, pair.mixture) for path in paths]
        length = self.frames * hop
        spare = min(len(sound) for sound in sounds) - length
        start = int(rng.integers(spare // hop + 1)) * hop if rng is not None and spare > 0 else 0
        mixture, separated = (sound[start : start + length] for sound in sounds)
        try:
            inputs = judge_inputs([mixture], [separated], rate, self.judge, frames=self.frames)
        except UserError as error:
            raise UserError(f"{pair.id}: {error}") from None
        return {
            "mixture": inputs.mixture[0],
            "separated": inputs.separated[0],
            "valid": inputs.valid[0],
        }


def rated_batches(examples: RatedExamples, batch: int, *, index: int, count: int) -> BatchStream:
    """Batches for training; the rows of the `index`-th of `count` processes."""
    return BatchStream(
        examples,
        batch,
        frames=2 * examples.frames,
        workers=examples.config.workers,
        process_index=index,
        process_count=count,
    )


@functools.cache
def _tokenizer(name: str, normalizes: bool) -> PretrainedTokenizer:
    return tokenizer_for(name, normalizes=normalizes)


@functools.lru_cache(maxsize=KEPT_CLIPS)
def clip(path: str, sample_rate: int, mixture: str) -> Float32[np.ndarray, " samples"]:
    """A recording as one channel at the judge's rate; its level stays.

    Channels are added up as in a separation, with the weights of the mixture that it is of, or is
    itself; with its own where it has another number of them.
    """
    loaded = audio.load(path)
    weights = None
    if (count := len(loaded.samples)) > 1:
        weights = _weights(mixture)
        weights = weights if len(weights) == count else _weights(path)
    return audio.resample(audio.mono(loaded.samples, weights), loaded.sample_rate, sample_rate)


@functools.lru_cache(maxsize=KEPT_WEIGHTS)
def _weights(path: str) -> Float[np.ndarray, " channels"]:
    """The weights with which the channels of a recording become one."""
    loaded = audio.load(path)
    return audio.mixing_weights(loaded.samples, loaded.sample_rate)
