"""Prompts in, stems out: the public face of the project.

model = SAMAudio.from_pretrained("tiny")
stems = model.separate("street.wav", text="dog barking", spans=[("+", 1.0, 2.5)])
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.convert.rankers import check_named, open_rankers
from sam_audio_jax.encoders.tokenizer import PretrainedTokenizer, tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs, prompt_notes
from sam_audio_jax.infer.buckets import BucketConfig
from sam_audio_jax.infer.collate import Tokenize
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.known_sounds import KnownConfig, KnownSounds
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.options import FIELDS, SeparateOptions
from sam_audio_jax.infer.processor import Batch
from sam_audio_jax.infer.reference_names import NAMES, translate
from sam_audio_jax.infer.refine import RefineConfig, silent_gaps
from sam_audio_jax.infer.rerank import Rankers
from sam_audio_jax.infer.separation_pipeline import Pipeline
from sam_audio_jax.infer.span_prediction import Source
from sam_audio_jax.infer.stems import Stems, TextStems
from sam_audio_jax.infer.video_prompts import make_clip, stored_tower
from sam_audio_jax.nn.storage import check_storage
from sam_audio_jax.scorers.audio_text import AudioTextScorer
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator

PROMPTS = ("text", "spans", "video", "mask", "video_features", "like")
PARTS = ("text", "all")  # what `from_pretrained` loads at once
ARGUMENTS = {*PROMPTS, *FIELDS, *NAMES, "ode_opt"}  # of `separate`, one for each item or all


class SAMAudio:
    """Separates sounds from recordings: reads recordings and prompts, and runs its `pipeline`."""

    def __init__(
        self, codec: Codec, prompted: PromptedSeparator, tokenizer: Tokenize, **settings: Any
    ):
        """`settings` are those of `Pipeline`."""
        self.pipeline = Pipeline(codec, prompted, tokenizer, **settings)

    @property
    def codec(self) -> Codec:
        """The codec; sample rate, frame rate and hop are in its `config`."""
        return self.pipeline.networks.codec

    @property
    def sample_rate(self) -> int:
        """Samples a second of generated stems."""
        return self.pipeline.sample_rate

    @property
    def sampler(self) -> SamplerConfig:
        """The solver's settings where a call has none."""
        return self.pipeline.sampler

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        dtype: str = "float32",
        parts: str = "text",
        buckets: BucketConfig | None = None,
        long_audio: LongAudioConfig | None = None,
        span_predictor: Source = None,
        rankers: Mapping[str, str | os.PathLike] | None = None,
        adapters: Sequence[str] = (),
        mesh: Mesh | None = None,
    ) -> "SAMAudio":
        """Loads the networks of a shipped name, a training workdir or one step of it, a folder in
        the upstream layout, or a Hugging Face id; with a mesh, sharded over its devices.

        `dtype` is that in which text encoder and separator are kept: "float32", "bfloat16",
        "float16" or "int8" (docs/inference.md); the codec is float32. `parts` is "text", what every
        call needs, or "all", which also loads what is else loaded by the first call that needs it.
        Vision tower, span predictor and rankers are loaded when a call needs them.
        `span_predictor` is a folder, a Hugging Face id or a name (`pe-a-frame-large`), `rankers`
        are files or folders by kind (`judge`, `clap`, `imagebind`); the default of both is what the
        config says. `adapters` are added to the weights (docs/finetuning.md), each "FOLDER" or
        "FOLDER:SCALE".
        Raises UserError if nothing is there, or if the networks do not fit each other.
        """
        name = inputs.check_checkpoint(name)
        storage = check_storage(dtype, on_mesh=mesh is not None)
        if parts not in PARTS:
            raise UserError(f"parts={parts!r} is unknown; allowed: {', '.join(PARTS)}")
        model = cls.from_networks(
            *load_networks(name, mesh=mesh, storage=storage, adapters=adapters),
            buckets=buckets,
            long_audio=long_audio,
            span_predictor=span_predictor,
            rankers=rankers,
            mesh=mesh,
        )
        if parts == "all":
            model.pipeline.load_parts()
        return model

    @classmethod
    def from_networks(
        cls,
        codec: Codec,
        prompted: PromptedSeparator,
        tokenizer_name: str,
        extra: Mapping[str, Any],
        *,
        buckets: BucketConfig | None = None,
        long_audio: LongAudioConfig | None = None,
        span_predictor: Source = None,
        rankers: Mapping[str, str | os.PathLike] | None = None,
        mesh: Mesh | None = None,
    ) -> "SAMAudio":
        """The model of what `load_networks` returns; the rest is as in `from_pretrained`."""
        tokenizer = tokenizer_for(tokenizer_name, normalizes=extra.get("normalizes_text", False))
        sounds, known = _known_config(extra), None
        if sounds is not None:
            known = KnownSounds(sounds, prompted.text_encoder, tokenizer)
        upstream = extra.get("upstream", {})
        check_named(rankers or {})
        named = open_rankers(upstream, rankers, folder=extra.get("folder"), mesh=mesh)
        return cls(
            codec,
            prompted,
            tokenizer,
            sampler=from_dict(SamplerConfig, extra.get("sampler", {})),
            buckets=buckets,
            long_audio=long_audio,
            vision=stored_tower(extra, mesh),
            audio_tower=extra.get("audio_tower"),
            refinement=_refinement(extra),
            span_predictor=span_predictor or upstream.get("span_predictor"),
            rankers=Rankers(named, named=tuple(rankers or ())),
            mesh=mesh,
            level_db=extra.get("level_db"),
            ignored_spans=tuple(extra.get("ignored_spans", ())),
            known=known,
        )

    def separate(
        self,
        audio: Any,
        text: Any = None,
        spans: Any = None,
        *,
        sample_rate: int | None = None,
        track: Any = None,
        video: Any = None,
        mask: Any = None,
        video_features: Any = None,
        like: Any = None,
        noise: Any = None,
        options: SeparateOptions | None = None,
        **arguments: Any,
    ) -> Any:
        """Returns `Stems` of one recording, a list of them for a list, `Separated` of a `Batch`.

        A list of texts for one recording gives `TextStems`, its stems by text: the recording is
        read and encoded once. With `joint` they add up to the recording, with `rest` one more takes
        what no text took. `spans` are then a list with a list (or None) for each text.
        `audio`: a path, or an array `[samples]` or `[channels, samples]` at `sample_rate`; with a
        list, the prompts and `noise` are lists too. A file has its own rate: another one beside it
        is an error. `track`: which audio track of a file, from 1; None: the one that players take.
        What is to be known about a file (damage, other tracks, a wrong length in its header) or its
        prompts (a span that marks no frame) is a Python warning.
        `spans`: [("+" or "-", start_s, end_s)]. Without a prompt it is an error, or `unprompted`.
        `video`: a path or uint8 `[frames, height, width, 3]` that span the recording, in which
        `mask` (see `video/masks.py`) marks the object; without a mask it is masked already.
        `video_features` stand for a video, `[latent frames, width]`.
        `like`: an example, a recording that sounds like the target: a path, or an array at
        `sample_rate`. Beside a text both are read. It needs a model with an audio tower.
        `noise`: x(0), `[frames, 2 * latent channels]`, with more than one candidate
        `[candidates, ...]`; else drawn from the seed, the same for every item of a list.

        `options` say how to separate; `arguments` are fields of `SeparateOptions`, which explains
        them and whose values in `options` they replace: `method`, `steps`, `grid`, `seed`,
        `candidates`, `scorer`, `predict_spans`, `watermark`, `refine`, `joint`, `rest`,
        `unprompted`, `mask_keeps`. The reference's names are arguments too (`reference_names.py`).

        A `Batch` of `SAMAudioProcessor` holds its prompts; it is padded and solved as the reference
        does, and `noise` is `[items * candidates, frames, 2 * latent channels]`.
        Raises UserError for anything that a caller can mend, before any work is done.
        """
        for name in arguments:
            if name not in ARGUMENTS:
                raise TypeError(f"separate() got an unexpected keyword argument {name!r}")
        own = {"text": text, "spans": spans, "video": video, "mask": mask, "like": like}
        values = translate(own | {"video_features": video_features} | arguments)
        prompts = {name: values.pop(name, None) for name in PROMPTS}
        options = dataclasses.replace(options or SeparateOptions(), **values)
        if isinstance(audio, Batch):
            if prompts["like"] is not None:
                raise UserError("examples (like) need recordings in place of a Batch")
            if passed := [name for name, value in prompts.items() if value is not None]:
                raise UserError(f"a Batch holds its prompts: give {passed[0]} to the processor")
            for name, value in (("sample_rate", sample_rate), ("track", track)):
                if value is not None:
                    raise UserError(f"{name} has no effect on a Batch, which is read: leave it out")
            return self.pipeline.separate_batch(audio, options, noise)
        self.pipeline.check_options(options)
        fields: dict[str, Any] = {"sample_rate": sample_rate, "mask_keeps": options.mask_keeps}
        prompts |= {"noise": noise, "track": track}
        recordings = self._recordings(audio, prompts, options, fields)
        every = [one for one in (audio, prompts["like"]) for one in _listed(one)]
        first = [recording.items[0] for recording in recordings]
        inputs.check_sample_rate(sample_rate, every, first)
        notes = [item.recording.notes for recording in recordings for item in recording.items]
        inputs.warn(tuple(dict.fromkeys(note for own in notes for note in own)))
        separated = self._separate(recordings, options)
        inputs.warn(*(stems.notes for stems in separated))
        return separated if isinstance(audio, list | tuple) else separated[0]

    def _separate(
        self, recordings: Sequence["_Recording"], options: SeparateOptions
    ) -> list[Stems | TextStems]:
        """The result of each recording; those with one prompt are solved together."""
        single = [number for number, one in enumerate(recordings) if not one.several]
        items = [recordings[number].items[0] for number in single]
        found: dict[int, Stems | TextStems] = {}
        if items:
            noises = [recordings[number].noise for number in single]
            stems = self.pipeline.separate_items(items, options, noises)
            found |= dict(zip(single, stems, strict=True))
        for number, one in enumerate(recordings):
            if one.several:
                found[number] = self.pipeline.separate_texts(one.items, options, one.noise)
        return [found[number] for number in range(len(recordings))]

    def _recordings(
        self,
        sources: Any,
        lists: dict[str, Any],
        options: SeparateOptions,
        fields: dict[str, Any],
    ) -> list["_Recording"]:
        """The recordings of a call: `lists` have a value for each, `fields` one for all."""
        if not isinstance(sources, list | tuple):
            return [self._recording(sources, options, **lists, **fields)]
        count = len(sources)
        if isinstance(lists["track"], int):
            lists = lists | {"track": [lists["track"]] * count}
        rows = {name: inputs.per_item(name, values, count) for name, values in lists.items()}
        return [
            self._recording(
                source,
                options,
                **{name: values[number] for name, values in rows.items()},
                **fields,
                name=f"item {number}",
            )
            for number, source in enumerate(sources)
        ]

    def _recording(
        self,
        source: Any,
        options: SeparateOptions,
        *,
        text: Any,
        spans: Any,
        noise: Any,
        **fields: Any,
    ) -> "_Recording":
        """The items of one recording, with a list of texts one for each of them."""
        if isinstance(text, list | tuple):
            items = self.items(source, text, spans, options=options, **fields)
            return _Recording(items, noise, several=True)
        if options.joint:
            raise UserError("stems that add up to the recording (joint, rest) need a list of texts")
        return _Recording([self.item(source, text, spans, **fields)], noise, several=False)

    def items(
        self,
        source: Any,
        texts: Any,
        spans: Any = None,
        *,
        options: SeparateOptions,
        name: str = "audio",
        video: Any = None,
        mask: Any = None,
        video_features: Any = None,
        like: Any = None,
        **fields: Any,
    ) -> list[Item]:
        """Reads one recording for several texts; the items share it and have one text each.

        `texts` is a list, `spans` one of lists of spans (or None) as long; `fields` are those of
        `item`. Raises UserError for wrong texts, for a video, which shows one sound alone, and
        where no joint stem may sound.
        """
        tokenizer = self.pipeline.tokenizer
        normalizes = isinstance(tokenizer, PretrainedTokenizer) and tokenizer.normalizes
        prompts = inputs.check_texts(texts, spans, name, normalizes=normalizes)
        if like is not None:
            raise UserError(
                f"an example prompts one sound: give {name} one text with it, not a list"
            )
        if any(value is not None for value in (video, mask, video_features)):
            raise UserError(f"a video prompts one sound: give {name} one text with it, not a list")
        if options.joint and not options.rest and len(prompts) < 2:
            raise UserError(
                f"stems that add up to {name} need two texts or more, or the rest beside them"
            )
        (first, marked), *others = prompts
        items = [self.item(source, first, marked, name=name, **fields)]
        recording = items[0].recording
        seconds = recording.samples.shape[-1] / recording.sample_rate
        for text, marked in others:
            checked = inputs.check_spans(marked, seconds, name)
            item = dataclasses.replace(items[0], text=text, spans=checked)
            items.append(self._noted(item, text))
        if options.joint and not options.rest:
            own = [item.spans for item in items]
            for start, end in silent_gaps(own, seconds, self.pipeline.refinement):
                raise UserError(
                    f"no stem of {name} may sound at {start:.2f}-{end:.2f} s, outside the '+' "
                    "spans of all texts: add the rest, or leave out the spans of one text"
                )
        return items

    def item(
        self,
        source: Any,
        text: str | None = None,
        spans: Any = None,
        *,
        sample_rate: int | None = None,
        track: int | None = None,
        video: Any = None,
        mask: Any = None,
        mask_keeps: str = "object",
        video_features: Any = None,
        like: Any = None,
        name: str = "audio",
        see: bool = True,
    ) -> Item:
        """Reads and checks one recording with its prompts; `name` is what errors call it.

        Without `see` the features of its video are not computed yet.
        """
        clip = make_clip(video, mask, mask_keeps, name, sound=source, track=track)
        if like is not None:
            self.pipeline.like_vectors.require()
        if clip is not None and video_features is None:
            self.pipeline.video_features.require()
        item = inputs.make_item(
            source,
            text,
            spans,
            sample_rate=sample_rate,
            track=track,
            codec_rate=self.sample_rate,
            clip=clip,
            name=name,
            level_db=self.pipeline.level_db,
        )
        frames, features = self.pipeline.frames(item), None
        if video_features is not None:
            features = self.pipeline.video_features.check(video_features, frames, name)
        elif clip is not None and see:
            features = self.pipeline.video_features(clip, frames)
        vector = None
        if like is not None:
            example = f"the example of {name}"
            vector, notes = self.pipeline.like_vectors(like, sample_rate, example)
            every = tuple(dict.fromkeys((*item.recording.notes, *notes)))  # it may be one file
            item = dataclasses.replace(
                item, recording=dataclasses.replace(item.recording, notes=every)
            )
        return self._noted(dataclasses.replace(item, features=features, like=vector), text)

    def audio_text_scorer(self) -> AudioTextScorer:
        """The scorer of sounds against texts that the model's audio tower makes.

        Raises UserError for a model without a tower.
        """
        return self.pipeline.like_vectors.scorer

    def _noted(self, item: Item, text: str | None) -> Item:
        """The item with notes on prompts that have no effect; `text` is what the caller gave."""
        pipeline = self.pipeline
        notes = [*prompt_notes.text_notes(text, item.text, pipeline.tokenizer)]
        grid = self.codec.config.sample_rate, self.codec.config.hop
        frames = pipeline.frames(item)
        idle = [*prompt_notes.span_notes(item.spans, frames, *grid, pipeline.ignored_spans)]
        others = (item.clip, item.features, item.like)
        alone = len(idle) == len(item.spans) and all(prompt is None for prompt in others)
        if alone and item.text and pipeline.known and (note := pipeline.known.note(item.text)):
            notes.append(note)
        notes += idle
        every = (*item.recording.notes, *(f"{item.name}: {note}" for note in notes))
        return dataclasses.replace(item, recording=dataclasses.replace(item.recording, notes=every))


def _listed(value: Any) -> Sequence[Any]:
    """The values for several recordings, or the one of a single recording in a list."""
    return value if isinstance(value, list | tuple) else [value]


def check_own_settings(extra: Mapping[str, Any]) -> None:
    """Raises UserError for extras of a model (`load_networks`) with which none can be made."""
    _refinement(extra)
    _known_config(extra)


def _refinement(extra: Mapping[str, Any]) -> RefineConfig:
    return from_dict(RefineConfig, extra.get("refine", {}), where="refine.")


def _known_config(extra: Mapping[str, Any]) -> KnownConfig | None:
    return from_dict(KnownConfig, extra["known"], where="known.") if "known" in extra else None


@dataclasses.dataclass(frozen=True)
class _Recording:
    """One recording of a call: an item, or one for each of `several` texts."""

    items: list[Item]
    noise: Any  # x(0); None where the seed draws it
    several: bool


@functools.lru_cache(maxsize=1)
def _model(checkpoint: str) -> SAMAudio:
    return SAMAudio.from_pretrained(checkpoint)


def separate(
    audio: str | os.PathLike | np.ndarray,
    text: str | None = None,
    spans: Sequence[Sequence] | None = None,
    *,
    sample_rate: int | None = None,
    track: int | None = None,
    checkpoint: str = "tiny",
    seed: int = 0,
    refine: str | None = None,
) -> Stems:
    """Separates one recording; the checkpoint stays loaded. See `SAMAudio.separate`."""
    return _model(checkpoint).separate(
        audio, text, spans, sample_rate=sample_rate, track=track, seed=seed, refine=refine
    )
