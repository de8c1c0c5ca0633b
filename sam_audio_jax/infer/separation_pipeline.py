"""Runs checked items and batches through the networks: noise, groups, candidates, stems."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.audio_tower import StoredAudioTower
from sam_audio_jax.convert.rankers import load_scorer
from sam_audio_jax.encoders.vision import VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs, prompt_notes, rerank
from sam_audio_jax.infer.buckets import BucketConfig, Group, group
from sam_audio_jax.infer.collate import Prompts, Tokenize, collate_batch, collate_items, with_spans
from sam_audio_jax.infer.in_parts import encode_in_parts, separate_in_parts
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.known_sounds import KnownSounds
from sam_audio_jax.infer.like import LikeVectors
from sam_audio_jax.infer.long_audio import LongAudio, LongAudioConfig
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.processor import Batch
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig
from sam_audio_jax.infer.rerank import Rankers
from sam_audio_jax.infer.solve import Networks, encode_mixture, separate_batch
from sam_audio_jax.infer.span_prediction import Source, SpanFinder
from sam_audio_jax.infer.stems import Separated, Stems, TextStems, check_waves, divided, refined
from sam_audio_jax.infer.video_prompts import StoredTower, VideoFeatures
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator


class Pipeline:
    """The networks and the programs compiled for them: from checked items to stems."""

    def __init__(
        self,
        codec: Codec,
        prompted: PromptedSeparator,
        tokenizer: Tokenize,
        *,
        sampler: SamplerConfig | None = None,
        buckets: BucketConfig | None = None,
        refinement: RefineConfig = DEFAULT,
        long_audio: LongAudioConfig | None = None,
        rankers: Rankers | None = None,
        vision: VisionEncoder | StoredTower | None = None,
        audio_tower: StoredAudioTower | None = None,
        span_predictor: Source = None,
        mesh: Mesh | None = None,
        level_db: float | None = None,
        ignored_spans: Sequence[str] = (),
        known: KnownSounds | None = None,
    ):
        """`level_db`: the level in dBFS to which recordings are brought; None: as recorded.

        `ignored_spans`: tokens of spans that the training lacked. `known`: its sounds by name.
        """
        channels = prompted.separator.config.channels
        if codec.config.codebook_dim != channels:
            raise UserError(
                f"the codec has {codec.config.codebook_dim} latent channels, "
                f"the separator {channels}"
            )
        self.networks = Networks(codec, prompted.text_encoder, prompted.separator)
        self.tokenizer = tokenizer
        self.sampler = sampler or SamplerConfig()
        self.buckets = buckets or BucketConfig()
        self.refinement = refinement
        self.level_db = level_db
        self.ignored_spans = tuple(ignored_spans)
        self.known = known
        self.rankers = rankers or Rankers()
        self.video_features = VideoFeatures(
            vision,
            codec.config,
            prompted.separator.config.video_width,
            mesh,
            trained=prompted.separator.reads_video,
        )
        self.like_vectors = LikeVectors(audio_tower, codec, prompted.text_encoder, tokenizer, mesh)
        self.span_finder = SpanFinder(span_predictor, codec.config)
        self._state = 2 * channels  # width of x: target and residual side by side
        self.compiled = Compiled(self.networks, mesh)
        self.long_audio = LongAudio(self.compiled, tokenizer, long_audio)

    @property
    def sample_rate(self) -> int:
        """Samples a second of the codec, and of the stems that it decodes."""
        return self.networks.codec.config.sample_rate

    @property
    def video_width(self) -> int:
        """Numbers in a frame of video features."""
        return self.networks.separator.config.video_width

    @property
    def text_width(self) -> int:
        """Numbers in a state of the text encoder, and in the vector of an example."""
        return self.networks.separator.config.text_width

    def load_parts(self) -> None:
        """Loads what the model has beside its networks, and what else the first call that needs it
        would load: vision tower, span predictor, rankers.

        Raises UserError for one that cannot be read.
        """
        if self.video_features.vision is not None and self.video_features.trained:
            _ = self.video_features.tower
        if self.like_vectors.tower is not None:
            _ = self.like_vectors.scorer
        if self.span_finder.source is not None:
            _ = self.span_finder.predictor
        for ranker in (self.rankers.model.text, self.rankers.model.visual):
            if ranker is not None:
                load_scorer(ranker)

    def frames(self, item: Item) -> int:
        """Returns the latent frames of an item."""
        return self.networks.codec.config.frames(len(item.wave))

    def plan(
        self, frames: Sequence[int], candidates: int = 1, texts: Sequence[int] = ()
    ) -> list[Group]:
        """Returns which items of these lengths (in frames) are solved together, and how padded.

        Candidates are rows of the batch like items, so they take room in a group. `texts` are the
        numbers of texts of the items.
        """
        buckets = dataclasses.replace(
            self.buckets,
            batch=max(1, self.buckets.batch // candidates),
            batch_frames=max(1, self.buckets.batch_frames // candidates),
        )
        longest = self.long_audio.longest
        shards = self.compiled.batch_shards
        return group(frames, buckets, longest=longest, shards=shards, texts=texts)

    def check_options(self, options: SeparateOptions) -> None:
        """Raises UserError for options that this model cannot follow."""
        if options.watermark is not None and self.networks.codec.watermark is None:
            raise UserError("this model's codec has no watermark")
        if options.predict_spans:
            self.span_finder.require()

    def check(self, item: Item, options: SeparateOptions, noise: Any = None) -> None:
        """Raises UserError for what an item and the options of its call cannot do together."""
        if not options.unprompted:
            video = item.clip if item.features is None else item.features
            inputs.require_prompt(item.text, item.spans, video, item.name, item.like)
        if noise is not None:
            self._noise(item, noise, self.frames(item), options)
        if options.watermark is not None and self.frames(item) > self.long_audio.longest:
            raise UserError(
                f"{item.name} is too long for a watermark, which runs over a whole recording; "
                "leave watermark out"
            )
        self.ranker(item.prompts, options, item.name)

    def separate_items(
        self, items: Sequence[Item], options: SeparateOptions, noises: Sequence[Any] | None = None
    ) -> list[Stems]:
        """Returns the stems of checked items, in their order.

        `noises`: x(0) of each, None where the seed draws it. Raises UserError before any work.
        """
        own_noises = noises or [None] * len(items)
        for item, noise in zip(items, own_noises, strict=True):
            self.check(item, options, noise)
        self.check_options(options)
        options.messages(1, self.networks.codec.config.watermark_bits)
        stems: dict[int, Stems] = {}
        for part in self.plan([self.frames(item) for item in items], options.candidates):
            members = [items[i] for i in part.items]
            solved = self.solve_group(part, members, options, [own_noises[i] for i in part.items])
            stems |= dict(zip(part.items, solved, strict=True))
        return [stems[number] for number in range(len(items))]

    def solve_group(
        self,
        part: Group,
        items: Sequence[Item],
        options: SeparateOptions,
        noises: Sequence[Any] | None = None,
    ) -> list[Stems]:
        """Returns the stems of one group of `plan`: one batch, or one recording in windows."""
        options = dataclasses.replace(options, joint=False, rest=False)  # of several texts alone
        drawn = [
            self._noise(item, noise, part.frames, options)
            for item, noise in zip(items, noises or [None] * len(items), strict=True)
        ]
        if part.frames > self.long_audio.longest:
            mixture = self.long_audio.encode(items[0].wave)
            waves, views = self._solve_long(items[0], drawn[0], options, mixture)
        else:
            prompts = collate_items(
                items, drawn, part, codec=self.networks.codec, tokenizer=self.tokenizer
            )
            views = [item.prompts for item in items]
            waves, views = self._solve(
                prompts, views, options, self._message(options), padding=False
            )
        generated = self._kept(items, waves, views, options)
        return [
            refined(item, stems, self.refinement)
            if options.refine and not item.placeholder
            else stems
            for item, stems in zip(items, generated, strict=True)
        ]

    def separate_texts(
        self, items: Sequence[Item], options: SeparateOptions, noise: Any = None
    ) -> TextStems:
        """Returns the stems of several texts of one recording, all with the same x(0).

        `items` are the recording with one of its texts each. Raises UserError before any work.
        """
        for item in items:
            self.check(item, options, noise)
        self.check_options(options)
        frames = [self.frames(items[0])]
        (part,) = self.plan(frames, options.candidates, [max(2, len(items))])
        return self.solve_texts(part, items, options, noise)

    def solve_texts(
        self, part: Group, items: Sequence[Item], options: SeparateOptions, noise: Any = None
    ) -> TextStems:
        """Returns the stems of checked items of one recording, which is encoded once.

        `part` is their group: texts are solved together, at most its rows at a time.
        """
        options.messages(1, self.networks.codec.config.watermark_bits)
        drawn = self._noise(items[0], noise, part.frames, options)
        is_long = part.frames > self.long_audio.longest
        mixture: Any = self.long_audio.encode(items[0].wave) if is_long else None
        most = 1 if is_long else part.rows
        generated: list[Stems] = []
        for start in range(0, len(items), most):
            chosen = items[start : start + most]
            if is_long:
                waves, views = self._solve_long(chosen[0], drawn, options, mixture)
            else:
                waves, views, mixture = self._solve_chosen(part, chosen, options, drawn, mixture)
            generated += self._kept(chosen, waves, views, options)
        if options.joint:
            return divided(items, generated, self.refinement, rest=options.rest)
        if options.refine:
            pairs = zip(items, generated, strict=True)
            generated = [refined(item, stems, self.refinement) for item, stems in pairs]
        texts = [item.text for item in items]
        return TextStems(dict(zip(texts, generated, strict=True)))

    def _solve_chosen(
        self,
        part: Group,
        items: Sequence[Item],
        options: SeparateOptions,
        noise: Float[np.ndarray, "candidates frames state"],
        mixture: Float[Array, "1 frames channels"] | None,
    ) -> tuple[
        Float[np.ndarray, "batch candidates stems samples"],
        list[PromptView],
        Float[Array, "1 frames channels"],
    ]:
        """Solves texts of one recording; `mixture` are its latents, None if it is to be encoded.

        Also returns the latents.
        """
        shards = self.compiled.batch_shards
        rows = shards * -(-len(items) // shards)
        prompts = collate_items(
            items,
            [noise] * len(items),
            Group(part.frames, rows, part.items),
            codec=self.networks.codec,
            tokenizer=self.tokenizer,
        )
        if mixture is None:
            mixture = self._encode(prompts.wave[:shards])[:1]
        prompts = dataclasses.replace(prompts, mixture=jnp.repeat(mixture, rows, axis=0))
        views = [item.prompts for item in items]
        waves, views = self._solve(prompts, views, options, self._message(options), padding=False)
        return waves, views, mixture

    def _message(self, options: SeparateOptions) -> Int[np.ndarray, "waves bits"] | None:
        """Returns the watermark, one for all waves, so that it depends on no neighbour."""
        return options.messages(1, self.networks.codec.config.watermark_bits)

    def _kept(
        self,
        items: Sequence[Item],
        waves: Float[np.ndarray, "batch candidates stems samples"],
        views: Sequence[PromptView],
        options: SeparateOptions,
    ) -> list[Stems]:
        """Returns the generated stems of each item, of the candidate that ranks first."""
        cuts = [solved[..., : len(item.wave)] for item, solved in zip(items, waves, strict=False)]
        for item, cut in zip(items, cuts, strict=True):
            check_waves(cut, item.name)
        # By the prompts of the caller: predicted spans rank only where nothing else can.
        rankers = [
            None if item.placeholder else self.ranker(item.prompts, options, item.name)
            for item in items
        ]
        levels = [item.level for item in items]
        mixtures = [
            item.wave if ranker is None else item.level.recorded(item.wave)
            for item, ranker in zip(items, rankers, strict=True)
        ]
        targets = [cut[:, 0] for cut in cuts]
        chosen = rerank.rank_items(rankers, targets, levels, mixtures, self.sample_rate, views)
        stems = []
        for item, view, cut, ranker, (best, scores) in zip(
            items, views, cuts, rankers, chosen, strict=True
        ):
            predicted = view.spans if options.predict_spans else None
            found = [*prompt_notes.target_notes(item, cut[best][0], self.sample_rate, predicted)]
            if note := self.rankers.note(ranker):
                found.append(note)
            notes = tuple(f"{item.name}: {note}" for note in found)
            target, *others = item.level.undo(cut[best])
            # Where it was not decoded nothing reads it: zeros that take no memory.
            residual = others[0] if others else np.broadcast_to(np.float32(0), target.shape)
            stems.append(Stems(target, residual, self.sample_rate, scores, view.spans, notes))
        return stems

    def separate_batch(
        self, batch: Batch, options: SeparateOptions, noise: Any = None
    ) -> Separated:
        """Solves a processor's batch in one call, as the reference does."""
        self.check_options(options)
        config = self.networks.codec.config
        rows, frames, hop = len(batch) * options.candidates, batch.frames, config.hop
        if options.refine:
            raise UserError("refine needs the recordings themselves: give them in place of a Batch")
        batch.check_grid(config.sample_rate, hop)
        most = self.networks.separator.config.dit.max_positions
        if frames > most:
            raise UserError(
                f"the batch has {frames} frames, at most {most} can be; give recordings"
            )
        if batch.anchors is not None:
            options = dataclasses.replace(options, predict_spans=False)
        views = batch.prompt_views
        rankers = [
            self.ranker(view, options, f"item {number}") for number, view in enumerate(views)
        ]
        if noise is None:
            noise = np.concatenate([options.noise(frames, self._state)] * len(batch))
        noise = inputs.check_noise(noise, frames, self._state, rows, "this batch")
        message = options.messages(2 * rows, config.watermark_bits)
        mixtures = list(batch.audios[:, 0])
        batch, levels = batch.at_level(self.level_db)
        prompts = collate_batch(
            batch,
            self.video_features.of_batch(
                batch.masked_videos, batch.video_features, batch.sizes.tolist(), frames
            ),
            noise,
            shards=self.compiled.batch_shards,
            codec=self.networks.codec,
            tokenizer=self.tokenizer,
        )
        waves, views = self._solve(prompts, views, options, message, padding=True)
        cuts = [waves[item, ..., : hop * size] for item, size in enumerate(batch.sizes)]
        for number, cut in enumerate(cuts):
            check_waves(cut, f"item {number}")
        targets = [cut[:, 0] for cut in cuts]
        chosen = rerank.rank_items(rankers, targets, levels, mixtures, self.sample_rate, views)
        stems = [
            level.undo(cut[best])
            for level, cut, (best, _) in zip(levels, cuts, chosen, strict=True)
        ]
        scores = [row for _, row in chosen if row is not None]
        return Separated(
            target=[target for target, _ in stems],
            residual=[residual for _, residual in stems],
            noise=noise,
            sample_rate=self.sample_rate,
            wav_sizes=batch.wav_sizes.tolist(),
            scores=np.stack(scores) if scores else None,
            spans=[view.spans for view in views],
        )

    def _solve(
        self,
        prompts: Prompts,
        views: list[PromptView],
        options: SeparateOptions,
        message: Int[np.ndarray, "waves bits"] | None,
        *,
        padding: bool,
    ) -> tuple[Float[np.ndarray, "batch candidates stems samples"], list[PromptView]]:
        """Returns the waves of all rows, and the prompts by which the items were separated.

        `padding`: predicted spans may lie beyond an item's end, as in the reference.
        """
        if options.predict_spans:
            prompts, views = self._predict(prompts, views, padding)
        if message is not None:
            last = np.minimum(np.arange(2 * len(prompts.noise)), len(message) - 1)
            prompts = dataclasses.replace(prompts, message=jnp.asarray(message[last]))
        sampler, decoding = options.sampler(self.sampler), _decoding(options)
        if self.compiled.saves_memory and message is None:
            waves = separate_in_parts(self.long_audio, prompts, sampler=sampler, **decoding)
            return waves, views
        waves = self.compiled.on_batch(separate_batch, prompts, sampler=sampler, **decoding)
        return np.asarray(waves), views

    def _encode(
        self, waves: Float[Array, "batch samples"]
    ) -> Float[Array, "batch frames channels"]:
        if self.compiled.saves_memory:
            return encode_in_parts(self.long_audio, waves)
        return self.compiled.on_batch(encode_mixture, waves)

    def _solve_long(
        self,
        item: Item,
        noises: Float[np.ndarray, "candidates frames state"],
        options: SeparateOptions,
        mixture: Float[np.ndarray, "frames channels"],
    ) -> tuple[Float[np.ndarray, "batch candidates stems samples"], list[PromptView]]:
        """`_solve` of one recording in windows; its spans are predicted piece by piece."""
        view = item.prompts
        if options.predict_spans and view.text and not view.spans:
            predicted = self.span_finder.in_pieces(mixture, view.text, self.long_audio.longest)
            view = dataclasses.replace(view, spans=predicted)
        waves = self.long_audio(
            mixture,
            noises,
            text=item.text,
            spans=view.spans,
            features=item.features,
            like=item.like,
            sampler=options.sampler(self.sampler),
            **_decoding(options),
        )
        return waves[None], [view]

    def _predict(
        self, prompts: Prompts, views: list[PromptView], padding: bool
    ) -> tuple[Prompts, list[PromptView]]:
        """Adds spans to the items that have none, before the solve that they condition.

        The release predicts them too late to change anything (docs/model.md,
        "Differences from the reference"). Those of "" are the reference's: only with `padding`.
        """
        if not padding and not any(view.text for view in views):
            return prompts, views
        if prompts.mixture is None:
            prompts = dataclasses.replace(prompts, mixture=self._encode(prompts.wave))
        count, valid = len(views), np.asarray(prompts.valid)
        texts = [view.text for view in views]
        mixture = np.asarray(prompts.mixture)[:count]
        predicted = self.span_finder(mixture, valid[:count], texts, padding=padding)
        views = [
            dataclasses.replace(view, spans=spans)
            if not view.spans and (view.text or padding)
            else view
            for view, spans in zip(views, predicted, strict=True)
        ]
        rows = [views[min(row, count - 1)].spans for row in range(len(valid))]
        return with_spans(prompts, rows, valid.sum(1).tolist(), self.networks.codec), views

    def ranker(self, view: PromptView, options: SeparateOptions, name: str) -> Scorer | None:
        """Returns what ranks the candidates of an item; None if there is only one."""
        if options.candidates == 1:
            return None
        predicts = options.predict_spans and bool(view.text) and not view.spans
        return self.rankers.choose(view, name, options.scorer, predicts_spans=predicts)

    def _noise(
        self, item: Item, noise: Any, frames: int, options: SeparateOptions
    ) -> Float[np.ndarray, "candidates frames state"]:
        """Returns x(0) of an item padded to `frames`; `noise` is the caller's, else the seed's."""
        drawn = options.noise(frames, self._state)
        if noise is not None:
            size = self.frames(item)
            drawn[:, :size] = inputs.check_noise(noise, size, self._state, options.candidates)
        return drawn


def _decoding(options: SeparateOptions) -> dict[str, bool]:
    """Which stems are decoded; the residuals of joint stems only where there is to be a rest."""
    return {"targets_only": True} if options.joint and not options.rest else {}
