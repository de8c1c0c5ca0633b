"""Recordings of a TFDS data set that is prepared as ArrayRecord, without TensorFlow.

`tfds.data_source` reads such a data set without TensorFlow unless one of its features is
`tfds.features.Audio`, whose class needs TensorFlow to exist. What that feature stores is a tensor
(samples, or the bytes of a file where it is decoded lazily), and as that it is read here.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core import splits as splits_lib

from sam_audio_jax import audio
from sam_audio_jax.data.recording import CATEGORIES, LINE, Recording, Song
from sam_audio_jax.encoders.text_form import has_words
from sam_audio_jax.errors import UnusableError, UserError, first_line, shown
from sam_audio_jax.files import read_json

AUDIO = "audio_feature.Audio"
TENSOR = "tensorflow_datasets.core.features.tensor_feature.Tensor"
CONSTANT = "="  # before a value that all examples have, instead of the name of a feature
SAME_S = 0.1  # by which the lengths of the stems of a song may differ
FULL_SCALE = 32_768.0  # of whole numbers: TFDS keeps samples as they come from 16-bit files
OURS = (
    *("sound", "sample_rate", "full_scale", "caption", "category", "id", "source_id", "license"),
    *("speaker", "song", "stem"),
)


class TfdsSource:
    """The examples of one split as recordings and their sounds.

    `fields` maps fields of a recording, and `sound`, `sample_rate` and `full_scale`, to the names
    of features ("a/b" of nested ones) or, after "=", to values that all examples have.
    """

    def __init__(self, folder: str, split: str, fields: Mapping[str, str]):
        """Raises `UserError` for a folder, split or feature that is not there."""
        self.folder, self.split, self.fields = folder, split, dict(fields)
        try:
            proto = dataset_info.read_proto_from_builder_dir(folder)
            self.name = proto.name
            template = tfds.core.ShardedFileTemplate(
                data_dir=pathlib.Path(folder),  # pyright: ignore[reportArgumentType]
                dataset_name=proto.name,
                filetype_suffix="array_record",
            )
            splits = splits_lib.SplitDict.from_proto(proto.splits, template)
        except (OSError, ValueError) as error:
            raise UserError(f"no TFDS data set in {folder}: {first_line(error)}") from None
        if proto.file_format != "array_record":
            raise UserError(
                f"{folder} is prepared as {proto.file_format or 'tfrecord'}; prepare it with "
                'file_format="array_record"'
            )
        try:
            instructions: Any = splits[split].file_instructions
        except (KeyError, ValueError):
            raise UserError(
                f"{folder} has no split {split!r}; it has {', '.join(splits)}"
            ) from None
        self._source = array_record_data_source.ArrayRecordDataSource(instructions)
        description = read_json(pathlib.Path(folder) / "features.json")
        self._audio: dict[str, Any] = {}  # description of each feature that is audio
        description = self._without_audio(description, "")
        self._features: Any = tfds.features.FeatureConnector.from_json(description)
        self._features.load_metadata(folder, feature_name=None)
        self._check()

    def _without_audio(self, value: Any, name: str) -> Any:
        """The description of features with tensors in the place of audio."""
        if not isinstance(value, dict):
            return value
        if str(value.get("pythonClassName", "")).endswith(AUDIO):
            described = value["audio"]
            self._audio[name] = described
            if described.get("lazyDecode"):
                tensor = {"shape": {}, "dtype": "string", "encoding": "none"}
            else:
                tensor = {key: described[key] for key in ("shape", "dtype", "encoding")}
            return {"pythonClassName": TENSOR, "tensor": tensor}
        inner = {"featuresDict", "features"}
        return {
            key: self._without_audio(one, name if key in inner else f"{name}/{key}".strip("/"))
            for key, one in value.items()
        }

    def _check(self) -> None:
        """Raises `UserError` for fields that are unknown, or map to features that are not there."""
        for ours, theirs in self.fields.items():
            if ours not in OURS:
                raise UserError(
                    f"data.source.tfds_fields has {ours!r}; fields are {', '.join(OURS)}"
                )
            if not theirs.startswith(CONSTANT) and self._feature(theirs) is None:
                raise UserError(
                    f"{self.folder} has no feature {theirs!r} (for {ours!r}); it has "
                    f"{', '.join(self._features.keys())}"
                )
        for ours in ("sound", "caption"):
            if ours not in self.fields:
                raise UserError(f"data.source.tfds_fields has no {ours!r}")

    def _feature(self, path: str) -> Any:
        found: Any = self._features
        for name in path.split("/"):
            found = found[name] if name in getattr(found, "keys", list)() else None
        return found

    def __len__(self) -> int:
        return len(self._source)

    def example(self, record: int) -> dict[str, Any]:
        """One example, decoded. Raises `UnusableError` where it cannot be read."""
        where = f"{self.folder} example {record}"
        try:
            return self._features.deserialize_example_np(self._source[record])
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            raise UnusableError(f"{where}: {first_line(error)}") from None

    def _value(self, example: Mapping[str, Any], ours: str, default: Any = None) -> Any:
        """What an example has for one of our fields; names of classes instead of numbers."""
        theirs = self.fields.get(ours)
        if theirs is None:
            return default
        if theirs.startswith(CONSTANT):
            return theirs.removeprefix(CONSTANT)
        value: Any = example
        for name in theirs.split("/"):
            value = value[name]
        feature = self._feature(theirs)
        if isinstance(feature, tfds.features.ClassLabel):
            return feature.int2str(int(value)).replace("_", " ")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def sound(self, record: int) -> audio.Sound:
        """The samples of one example, or the bytes of its file where it is decoded lazily."""
        return self._sound(self.example(record), f"{self.folder} example {record}")

    def _sound(self, example: Mapping[str, Any], where: str) -> audio.Sound:
        theirs = self.fields["sound"]
        value: Any = example
        for name in theirs.split("/"):
            value = value[name]
        if isinstance(value, bytes | bytearray):
            return audio.Encoded(bytes(value), where)
        samples = np.asarray(value)
        if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2) or not samples.size:
            text = f"{where}: sound is {samples.dtype} of shape {samples.shape}"
            raise UnusableError(text, "no samples")
        rate = self._value(example, "sample_rate", self._audio.get(theirs, {}).get("sampleRate"))
        if not rate:
            raise UserError(
                f"{self.folder} does not say the sample rate of {theirs!r}: give it in "
                'data.source.tfds_fields as ("sample_rate", "=16000")'
            )
        scale = float(
            self._value(example, "full_scale", 1 if samples.dtype.kind == "f" else FULL_SCALE)
        )
        wave = np.atleast_2d(samples.T).astype(np.float32) / np.float32(scale)
        if np.abs(wave).max() > 1.5:
            text = f"{where}: samples of up to {np.abs(wave).max():.3g} times full scale {scale:g}"
            raise UnusableError(text, "full scale")
        return audio.Raw(np.ascontiguousarray(wave), int(rate), where)

    def recordings(self) -> Iterator[Recording | Song | UnusableError]:
        """Yields the recording of each example, or why there is none, and then the songs.

        The examples with one value of `song` are the stems of one song. One whose stems differ in
        length, or of which two have one name, is none: these are several excerpts of a piece.
        """
        stems: dict[str, dict[str, tuple[str, float]]] = {}  # song -> name -> id, seconds
        refused: dict[str, str] = {}  # song -> why it is none
        for record in range(len(self)):
            try:
                recording = self._recording(record)
            except UnusableError as error:
                yield error
                continue
            yield recording
            if not recording.song:
                continue
            name, seconds = recording.stem or recording.caption, recording.duration
            others = stems.setdefault(recording.song, {})
            if name in others:
                refused[recording.song] = f"two stems {shown(name)}"
            elif any(abs(other - seconds) > SAME_S for _, other in others.values()):
                lengths = sorted({seconds, *(other for _, other in others.values())})
                refused[recording.song] = f"stems of {lengths[0]:.2f} to {lengths[-1]:.2f} s"
            others[name] = recording.id, seconds
        for song, others in stems.items():
            if reason := refused.get(song):
                text = f"{self.folder} song {shown(song)} has {reason}: they are not one excerpt"
                yield UnusableError(text, "stems of several excerpts")
            else:
                yield Song(song, self.split, tuple(name for name, _ in others.values()))

    def _recording(self, record: int) -> Recording:
        where = f"{self.folder} example {record}"
        example = self.example(record)
        caption = self._value(example, "caption")
        if not isinstance(caption, str) or not has_words(caption):
            raise UnusableError(f"{where}: caption is {shown(caption)}", "no caption")
        category = str(self._value(example, "category", "sfx"))
        if category not in CATEGORIES:
            allowed = ", ".join(CATEGORIES)
            text = f"{where}: category {shown(category)} must be one of {allowed}"
            raise UnusableError(text, LINE)
        name = f"{self.name}/{self.split}/{record}"
        return Recording(
            id=str(self._value(example, "id", name)),
            path=self.folder,
            record=record,
            caption=caption,
            category=category,
            source_id=str(self._value(example, "source_id", name)),
            duration=self._seconds(self._sound(example, where)),
            license=str(self._value(example, "license", "unknown")),
            split=self.split,
            speaker=self._optional(example, "speaker"),
            song=self._optional(example, "song"),
            stem=self._optional(example, "stem"),
        )

    def _optional(self, example: Mapping[str, Any], ours: str) -> str | None:
        """A field that an example may lack, as text: a number, also 0, is a name; "" is none."""
        value = self._value(example, ours)
        return None if value is None else str(value) or None

    def _seconds(self, sound: audio.Sound) -> float:
        if isinstance(sound, audio.Raw):
            return sound.samples.shape[1] / sound.sample_rate
        assert isinstance(sound, audio.Encoded)
        return audio.sound_seconds(sound)
