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

from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.buckets import BucketConfig
from sam_audio_jax.infer.engine import Engine
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.options import Options, choose_sampler, one_of
from sam_audio_jax.infer.processor import Batch
from sam_audio_jax.infer.rerank import Scorer
from sam_audio_jax.infer.span_prediction import Source
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.infer.video_prompts import make_clip, stored_tower
from sam_audio_jax.separator.flow import SamplerConfig


class SAMAudio(Engine):
    """Separates sounds from recordings. Holds the networks and the programs compiled for them."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        buckets: BucketConfig | None = None,
        long_audio: LongAudioConfig | None = None,
        span_predictor: Source = None,
        mesh: Mesh | None = None,
    ) -> "SAMAudio":
        """The networks of a shipped name, a training workdir or one step of it, a folder in the
        upstream layout, or a Hugging Face id; with a mesh, spread over its devices.

        Vision tower and span predictor are loaded when a call needs them; `span_predictor` is a
        folder, a Hugging Face id or a name (`pe-a-frame-large`), by default what the config says.
        UserError: nothing there, or what is there does not fit.
        """
        name = inputs.check_checkpoint(name)
        codec, prompted, tokenizer, extra = load_networks(name, mesh=mesh)
        return cls(
            codec,
            prompted,
            tokenizer_for(tokenizer),
            sampler=from_dict(SamplerConfig, extra.get("sampler", {})),
            buckets=buckets,
            long_audio=long_audio,
            vision=stored_tower(extra, mesh),
            span_predictor=span_predictor or extra.get("upstream", {}).get("span_predictor"),
            mesh=mesh,
        )

    def separate(
        self,
        audio: Any,
        text: Any = None,
        spans: Any = None,
        *,
        sample_rate: int | None = None,
        video: Any = None,
        mask: Any = None,
        mask_keeps: str = "object",
        video_features: Any = None,
        method: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        noise: Any = None,
        candidates: int | None = None,
        scorer: Scorer | None = None,
        predict_spans: bool = False,
        watermark: Any = None,
        refine: str | None = None,
        descriptions: Any = None,
        anchors: Any = None,
        masked_videos: Any = None,
        ode: str | None = None,
        ode_opt: Mapping[str, Any] | None = None,
        reranking_candidates: int | None = None,
    ) -> Any:
        """`Stems` of one recording, a list of them for a list, `Separated` of a `Batch`.

        `audio`: a path, or an array `[samples]` or `[channels, samples]` at `sample_rate`; with a
        list, the prompts and `noise` are lists too. `spans`: [("+" or "-", start_s, end_s)].
        `video`: a path or uint8 `[frames, height, width, 3]` that span the recording, in which
        `mask` (see `video/masks.py`) marks the object; `mask_keeps` says what stays visible, the
        "object" that is asked for or the "background"; without a mask it is masked already.
        `video_features` stand for a video, `[latent frames, width]`.
        `noise`: x(0), `[frames, 2 * latent channels]`, with more than one candidate
        `[candidates, ...]`; otherwise drawn from `seed`, the same for every item, so that an item's
        stems do not depend on its company. Of `candidates` solves the one is kept whose target
        `scorer` likes best. `predict_spans` finds the spans of items that were given none.
        `watermark`: None, 16 bits, or "random" as the reference always does.
        `refine="wiener"` divides the recording itself as the generated stems say.
        The names from `descriptions` on are the reference's, `ode` is that of `method`.

        A `Batch` of `SAMAudioProcessor` holds its prompts; it is padded and solved as the reference
        does, and `noise` is `[items * candidates, frames, 2 * latent channels]`.
        UserError: anything that a caller can mend, before any work is done.
        """
        options = self.options(
            method=method,
            steps=steps,
            ode=ode,
            ode_opt=ode_opt,
            seed=seed,
            candidates=one_of(
                "candidates", candidates, "reranking_candidates", reranking_candidates
            ),
            scorer=scorer,
            predict_spans=predict_spans,
            watermark=watermark,
            refine=refine,
        )
        prompts = {
            "text": one_of("text", text, "descriptions", descriptions),
            "spans": one_of("spans", spans, "anchors", anchors),
            "video": one_of("video", video, "masked_videos", masked_videos),
            "mask": mask,
            "video_features": video_features,
        }
        if isinstance(audio, Batch):
            if said := [name for name, value in prompts.items() if value is not None]:
                raise UserError(f"a Batch holds its prompts: give {said[0]} to the processor")
            return self.separate_batch(audio, options, noise)
        if isinstance(audio, list | tuple):
            rows = {name: inputs.per_item(name, v, len(audio)) for name, v in prompts.items()}
            noises = inputs.per_item("noise", noise, len(audio))
            items = [
                self.item(
                    source,
                    **{name: values[number] for name, values in rows.items()},
                    sample_rate=sample_rate,
                    mask_keeps=mask_keeps,
                    name=f"item {number}",
                )
                for number, source in enumerate(audio)
            ]
            return self.separate_items(items, options, noises)
        item = self.item(audio, **prompts, sample_rate=sample_rate, mask_keeps=mask_keeps)
        return self.separate_items([item], options, [noise])[0]

    def options(
        self,
        *,
        method: str | None = None,
        steps: int | None = None,
        ode: str | None = None,
        ode_opt: Mapping[str, Any] | None = None,
        seed: int = 0,
        candidates: int | None = None,
        predict_spans: bool = False,
        scorer: Scorer | None = None,
        watermark: Any = None,
        refine: str | None = None,
    ) -> Options:
        """Checked options of a call, with the model's own for what is left out."""
        if watermark is not None and self.networks.codec.watermark is None:
            raise UserError("this model's codec has no watermark")
        if predict_spans:
            self.span_finder.require()
        return Options(
            sampler=choose_sampler(
                self.sampler, method=method, steps=steps, ode=ode, ode_opt=ode_opt
            ),
            seed=seed,
            candidates=1 if candidates is None else candidates,
            predict_spans=predict_spans,
            scorer=scorer or self.scorer,
            watermark=watermark,
            refine=refine,
        )

    def item(
        self,
        source: Any,
        text: str | None = None,
        spans: Sequence[Sequence] | None = None,
        *,
        sample_rate: int | None = None,
        video: Any = None,
        mask: Any = None,
        mask_keeps: str = "object",
        video_features: Any = None,
        name: str = "audio",
        see: bool = True,
    ) -> Item:
        """Reads and checks one recording with its prompts; `name` is what errors call it.

        With `see` its video has been looked at, else there are no features of it yet.
        """
        clip = make_clip(video, mask, mask_keeps, name)
        if clip is not None and video_features is None:
            self.video_features.require()
        item = inputs.make_item(
            source,
            text,
            spans,
            sample_rate=sample_rate,
            codec_rate=self.sample_rate,
            clip=clip,
            name=name,
        )
        frames, features = self.frames(item), None
        if video_features is not None:
            features = self.video_features.check(video_features, frames, name)
        elif clip is not None and see:
            features = self.video_features(clip, frames)
        return dataclasses.replace(item, features=features)


@functools.lru_cache(maxsize=1)
def _model(checkpoint: str) -> SAMAudio:
    return SAMAudio.from_pretrained(checkpoint)


def separate(
    audio: str | os.PathLike | np.ndarray,
    text: str | None = None,
    spans: Sequence[Sequence] | None = None,
    *,
    sample_rate: int | None = None,
    checkpoint: str = "tiny",
    seed: int = 0,
    refine: str | None = None,
) -> Stems:
    """One recording with a checkpoint that stays loaded; see `SAMAudio.separate`."""
    return _model(checkpoint).separate(
        audio, text, spans, sample_rate=sample_rate, seed=seed, refine=refine
    )
