"""Fixed mixtures for evaluation: a list of ids, offsets and gains, rendered the same everywhere.

Format: docs/data.md, "Fixed mixtures"; an item is a line of `mixtures.jsonl` beside a source
manifest that names the clips. A stem is the sum of gain * clip[start : start + samples] placed at
offset, the mixture is target + residual, sample for sample. Counts are in samples of the item's own
rate.
"""

import dataclasses
import functools
import pathlib
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.bounds import Count, Finite, NonNegative, Range, SampleRate, check
from sam_audio_jax.data import energy, source, span_prompts
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.eval.recorded import Rendered, Wave
from sam_audio_jax.eval.statistics import ALL
from sam_audio_jax.files import check_file_name
from sam_audio_jax.scorers.activity import TimeRange

LONGEST_S = 86_400  # seconds of a mixture, which is held in memory
PEAK_TOLERANCE = (
    1e-3  # decoders of lossy clips differ by less, and the listed peak has four decimals
)
MUSIC = "music playing"  # the caption of a whole piece in the lists

SampleCount = Annotated[int, Range(1, 1_000_000_000)]  # six hours at 48 kHz
_Ranges = tuple[tuple[Finite, Finite], ...]
_EVENT = {"clip": str, "start": Count, "samples": SampleCount, "offset": Count, "gain": Finite}


@dataclasses.dataclass(frozen=True)
class PlacedClip:
    """`gain * clip[start : start + samples]`, placed at `offset`; counts in samples."""

    clip: str
    start: int
    samples: int
    offset: int
    gain: float


@dataclasses.dataclass(frozen=True)
class FixedMixture:
    """One line of the list: the clips to mix, and the prompts of both stems."""

    id: str
    setting: str  # sfx, speech, speaker, music, instr
    caption: str  # text prompt of the target
    samples: int
    sample_rate: int
    spans: tuple[TimeRange, ...]  # in which the target sounds
    target: tuple[PlacedClip, ...]
    residual: tuple[PlacedClip, ...]
    residual_captions: tuple[str, ...]
    peak: float | None  # of the mixture, to check the rendering; None: not listed
    line: int
    other: str | None = None  # text prompt of the residual, where it is one source by another name
    seen: bool | None = None  # whether a training recording has the caption; None: not listed
    alt_caption: str = ""  # another text for the target
    absent: str = ""  # the caption of a sound that is not in the mixture
    # Other recordings of what the two stems are, by clip; by path in a loaded bench.
    example: str = ""
    other_example: str = ""

    @property
    def seconds(self) -> float:
        """The length of the mixture."""
        return self.samples / self.sample_rate

    @property
    def part(self) -> str:
        """The part of its setting that the caption is in; "" where it is not listed."""
        known = {None: "", True: "known captions", False: "new captions"}[self.seen]
        return known and f"{self.setting}, {known}"


@dataclasses.dataclass(frozen=True)
class Bench:
    """A list of mixtures and the paths of their clips."""

    name: str
    path: pathlib.Path
    mixtures: tuple[FixedMixture, ...]
    clips: dict[str, str]


def folder_of(bench: str | pathlib.Path) -> pathlib.Path:
    """The folder of a bench, by its name or path; `embedded` is the one in the package.

    Raises UserError where it lacks `manifest.jsonl` or `mixtures.jsonl`.
    """
    embedded = pathlib.Path(source.embedded()).parent
    folder = embedded if str(bench) == "embedded" else pathlib.Path(bench)
    for name in ("manifest.jsonl", "mixtures.jsonl"):
        if not (folder / name).is_file():
            raise UserError(
                f"bench {str(bench)!r} has no {name}; give 'embedded' or a folder that holds "
                "manifest.jsonl and mixtures.jsonl"
            )
    return folder


def load_bench(bench: str | pathlib.Path) -> Bench:
    """Reads a list of mixtures; raises UserError naming file and line."""
    folder = folder_of(bench)
    recordings = {clip.id: clip for clip in source.load_manifest(folder / "manifest.jsonl")}
    listing = folder / "mixtures.jsonl"
    mixtures = tuple(_mixture(entry, line, listing) for line, entry in source.read_objects(listing))
    seen: dict[str, int] = {}
    for item in mixtures:
        if item.id in seen:
            raise UserError(
                f"{listing} line {item.line}: id {item.id} is also in line {seen[item.id]}"
            )
        seen[item.id] = item.line
        for event in item.target + item.residual:
            if event.clip not in recordings:
                raise _wrong(listing, item, f"clip {event.clip!r} is not in manifest.jsonl")
        for example in filter(None, (item.example, item.other_example)):
            if example not in recordings:
                raise _wrong(listing, item, f"example {example!r} is not in manifest.jsonl")
    clips = {name: recording.path for name, recording in recordings.items()}
    named = tuple(
        dataclasses.replace(
            item,
            other=_other_source(item, recordings),
            example=clips.get(item.example, ""),
            other_example=clips.get(item.other_example, ""),
        )
        for item in mixtures
    )
    return Bench(str(bench), listing, named, clips)


def _other_source(item: FixedMixture, recordings: dict[str, source.Recording]) -> str | None:
    """The caption of a residual that is one source: its only caption, or "music" for stems."""
    captions = set(item.residual_captions)
    kinds = {recordings[event.clip].category for event in item.residual}
    if len(captions) > 1 and kinds == {"music"}:
        musical = {recordings[event.clip].category for event in item.target} & {"music"}
        captions = set() if musical else {MUSIC}
    return captions.pop() if len(captions) == 1 and captions != {item.caption} else None


def render(bench: Bench, item: FixedMixture) -> Rendered[FixedMixture]:
    """Decodes the clips of one item and mixes them.

    Raises UserError, naming id and line, where a clip is missing, too short or of another rate, a
    stem is silent, or the mixture's peak is not the listed one.
    """
    target = _stem(bench, item, item.target, "target")
    residual = _stem(bench, item, item.residual, "residual")
    mixture = target + residual
    peak = float(np.abs(mixture).max())
    if item.peak is not None and abs(peak - item.peak) > PEAK_TOLERANCE:
        raise _wrong(
            bench.path, item, f"the mixture peaks at {peak:.4f}, the list says {item.peak:.4f}"
        )
    return Rendered(item, mixture, item.sample_rate, target, residual)


def activity(wave: Wave, sample_rate: int) -> tuple[TimeRange, ...]:
    """The time ranges in which a stem sounds, by the rule of the span prompts in training."""
    hop = round(energy.CELL_S * sample_rate)
    spans = span_prompts.positive(energy.activity(wave, sample_rate, hop), sample_rate / hop)
    return tuple((start, end) for _, start, end in spans)


def _stem(bench: Bench, item: FixedMixture, events: tuple[PlacedClip, ...], name: str) -> Wave:
    """Sums the events of one stem; `name` is what errors call it."""
    total = np.zeros(item.samples, np.float64)
    for event in events:
        clip = _decode(bench.clips[event.clip])
        if clip.sample_rate != item.sample_rate:
            raise _wrong(
                bench.path,
                item,
                f"clip {event.clip} has {clip.sample_rate} Hz, the mixture {item.sample_rate} Hz",
            )
        if event.start + event.samples > clip.samples.shape[-1]:
            raise _wrong(
                bench.path,
                item,
                f"needs samples {event.start} to {event.start + event.samples} of clip "
                f"{event.clip}, which has {clip.samples.shape[-1]}",
            )
        whole = audio.mono(clip.samples.astype(np.float64), _weights(bench.clips[event.clip]))
        part = whole[event.start : event.start + event.samples]
        total[event.offset : event.offset + event.samples] += event.gain * part
    if not np.any(total):
        raise _wrong(bench.path, item, f"its {name} is silent")
    return total.astype(np.float32)


@functools.lru_cache(maxsize=32)  # a clip returns in several events and neighbouring items
def _decode(path: str) -> audio.Audio:
    """Decodes a clip; the last ones are kept."""
    return audio.load(path)


@functools.cache
def _weights(path: str) -> Float[np.ndarray, " channels"]:
    """Returns the weights with which the channels of a clip become one."""
    clip = _decode(path)
    return audio.mixing_weights(clip.samples, clip.sample_rate)


def _wrong(path: pathlib.Path, item: FixedMixture, what: str) -> UserError:
    """Returns an error that names the file, the line and the mixture."""
    return UserError(f"{path} line {item.line}: mixture {item.id}: {what}")


def _mixture(entry: dict[str, Any], line: int, path: pathlib.Path) -> FixedMixture:
    """Reads one line of the list; raises UserError where a field is missing or impossible."""
    where = f"{path} line {line}"
    item = FixedMixture(
        id=_field(entry, "id", str, where),
        setting=_field(entry, "setting", str, where),
        caption=_field(entry, "caption", str, where),
        samples=_field(entry, "samples", SampleCount, where),
        sample_rate=_field(entry, "sample_rate", SampleRate, where),
        spans=tuple(
            (float(start), float(end))
            for start, end in _field(entry, "spans", _Ranges, where, missing=())
        ),
        target=_events(entry, "target", where),
        residual=_events(entry, "residual", where),
        residual_captions=tuple(
            _field(entry, "residual_captions", tuple[str, ...], where, missing=())
        ),
        peak=_field(entry, "mixture_peak", NonNegative, where, missing=None),
        line=line,
        seen=_field(entry, "seen", bool, where, missing=None),
        alt_caption=_field(entry, "alt_caption", str, where, missing=""),
        absent=_field(entry, "absent", str, where, missing=""),
        example=_field(entry, "example", str, where, missing=""),
        other_example=_field(entry, "other_example", str, where, missing=""),
    )
    check_file_name(item.id, where)
    if item.samples > LONGEST_S * item.sample_rate:
        raise _wrong(path, item, f"{item.samples} samples are more than {LONGEST_S} s")
    if not item.setting or item.setting == ALL or "/" in item.setting:
        raise UserError(f"{where}: setting {shown(item.setting)} must be a name other than 'all'")
    for start, end in item.spans:
        if not 0 <= start < end <= item.seconds + 0.01:  # listed with two decimals
            raise _wrong(
                path,
                item,
                f"span {start}-{end} s must have start < end within 0-{item.seconds:g} s",
            )
    for event in item.target + item.residual:
        inside = event.offset >= 0 and event.offset + event.samples <= item.samples
        if not inside or event.start < 0 or event.samples <= 0 or not np.isfinite(event.gain):
            raise _wrong(path, item, f"event {event} is not within {item.samples} samples")
    return item


def _field(entry: dict[str, Any], key: str, hint: Any, where: str, **missing: Any) -> Any:
    """A field of one line; raises `UserError` where it is missing or not what `hint` says.

    With `missing=VALUE` it may be absent or null, and is that value then.
    """
    if missing and entry.get(key) is None:
        return missing["missing"]
    if key not in entry:
        raise UserError(f"{where}: field {key!r} is missing")
    check(hint, entry[key], f"{where}: {key}")
    return entry[key]


def _events(entry: dict[str, Any], stem: str, where: str) -> tuple[PlacedClip, ...]:
    """Reads the events of one stem."""
    events = []
    for event in _field(entry, stem, tuple[Any, ...], where):
        name = f"{where}: {stem}"
        check(dict, event, name)
        values = {key: _field(event, key, hint, name) for key, hint in _EVENT.items()}
        events.append(PlacedClip(**values))
    return tuple(events)
