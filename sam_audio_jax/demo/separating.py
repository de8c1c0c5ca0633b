"""One job from its recording to the files of its stems, by the ordinary pipeline."""

import pathlib
import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.demo.drawing import draw
from sam_audio_jax.demo.jobs import Job, StemFile
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import output
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems, TextStems
from sam_audio_jax.video.masks import StretchedMasks
from sam_audio_jax.video.reading import decode_frames


class Separating:
    """The work of the queue: reads, separates, draws and writes one job after the other."""

    def __init__(self, model: SAMAudio):
        self.model = model
        # Seconds of computation for a second of sound, by kind of job; None after the first of
        # them, which was compiled.
        self._seconds: dict[tuple, float | None] = {}

    def why_no_video(self) -> str | None:
        """Why the model cannot be prompted by a video; None if it can."""
        try:
            self.model.pipeline.video_features.require()
        except UserError as error:
            return str(error)
        return None

    def __call__(self, job: Job) -> None:
        """Separates one job; its stages are shown while it runs.

        Raises UserError for what its visitor can change, CancelledError after a cancellation.
        """
        began, kind = time.monotonic(), self._kind(job)
        speed, compiled = self._seconds.get(kind), kind in self._seconds
        job.expected_s = None if speed is None else speed * job.upload.seconds
        job.enter("reading the recording")
        items = self._items(job)
        hint = "" if compiled else "; the first of its length takes longer"
        job.enter(f"separating {job.upload.seconds:.1f} s{hint}")
        stems = self._separate(job, items)
        job.stems = self._write(job, items[0], stems)
        notes = (*job.upload.notes, *(note for item in items for note in item.recording.notes))
        job.notes = tuple(dict.fromkeys((*notes, *stems.notes)))
        spent = (time.monotonic() - began) / job.upload.seconds
        self._seconds[kind] = spent if compiled else None

    def _kind(self, job: Job) -> tuple:
        """Jobs of one kind take about as long for a second of sound."""
        options, seconds = job.request.options, job.upload.seconds
        length = round(seconds, 1) if seconds < 60 else 0  # each length is compiled by itself
        return length, len(job.request.prompts), options.refine, options.steps

    def _items(self, job: Job) -> list[Item]:
        """The checked items: one, or one for each of several texts."""
        request, name, recording = job.request, job.upload.name, job.upload.read()
        if request.several:
            texts = [text for text, _ in request.prompts]
            spans = [list(marked) for _, marked in request.prompts]
            return self.model.items(recording, texts, spans, options=request.options, name=name)
        (text, spans), mask = request.prompts[0], request.mask()
        video: dict[str, Any] = {}
        if mask is not None:
            path = job.upload.video
            if path is None:
                raise UserError(f"{name} has no picture to draw a box on")
            if reason := self.why_no_video():
                raise UserError(reason)
            job.enter("looking at the video")
            count = sum(1 for _ in decode_frames(path, f"the video of {name}"))
            video = {"video": path, "mask": StretchedMasks(mask, count)}
        return [self.model.item(recording, text, spans, name=name, **video)]

    def _separate(self, job: Job, items: list[Item]) -> Stems | TextStems:
        options, pipeline = job.request.options, self.model.pipeline
        if job.request.several:
            return pipeline.separate_texts(items, options)
        (stems,) = pipeline.separate_items(items, options)
        return stems

    def _write(self, job: Job, item: Item, stems: Stems | TextStems) -> tuple[StemFile, ...]:
        """Writes each stem and its drawing; all have the level of the recording's drawing."""
        job.folder.mkdir(exist_ok=True)
        loudest_db = job.upload.drawing.loudest_db if job.upload.drawing else None
        beginning = pathlib.PurePath(job.upload.name).stem or "recording"
        files = []
        for number, stem in enumerate(_stems_of(stems)):
            job.enter("writing the stems")
            path, picture = (job.folder / f"{number}.{end}" for end in ("wav", "view"))
            channels = np.atleast_2d(stem.wave)
            audio.write_wav(path, channels, stems.sample_rate)
            drawing = draw(item.mix(channels), stems.sample_rate, loudest_db)
            picture.write_bytes(drawing.data)
            files.append(
                StemFile(
                    label=stem.label,
                    kind=stem.kind,
                    prompt=stem.prompt,
                    path=path,
                    download=f"{beginning}.{stem.file}.wav",
                    drawing=picture,
                    shape=drawing.facts(),
                    sample_rate=stems.sample_rate,
                )
            )
        return tuple(files)


class _Stem(NamedTuple):
    """A stem before it is written; `file` is the end of its name as a download, less .wav."""

    label: str
    kind: str
    prompt: int | None
    file: str
    wave: Float[np.ndarray, "*channels samples"]


def _stems_of(stems: Stems | TextStems) -> list[_Stem]:
    """The stems in the order in which the page shows them."""
    if isinstance(stems, Stems):
        both = (("target", stems.target), ("residual", stems.residual))
        return [_Stem(kind, kind, 0, kind, wave) for kind, wave in both]
    found = []
    for number, (text, name) in enumerate(zip(stems, output.file_names(list(stems)), strict=True)):
        one = stems[text]
        found.append(_Stem(text, "target", number, f"{name}.target", one.target))
        if not stems.joint:
            label = f"without {text}"
            found.append(_Stem(label, "residual", number, f"{name}.residual", one.residual))
    if stems.rest is not None:
        found.append(_Stem("rest", "rest", None, "rest", stems.rest))
    return found
