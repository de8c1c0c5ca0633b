"""The labels of recordings that are separated together: stems, latents and every score.

All waves here are at the level at which the model takes recordings, so that the gain of a recording
changes no score, but for `silence`, whose published threshold is an absolute level. What a row of a
batch gives does not depend on the other rows.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float16

from sam_audio_jax import audio
from sam_audio_jax.audio import Audio
from sam_audio_jax.codec.codec import pad_to_hop
from sam_audio_jax.data import energy, span_prompts
from sam_audio_jax.data.labels import LabelledRecord
from sam_audio_jax.errors import UnusableError, UserError
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.solve import encode_mixture
from sam_audio_jax.label import label_measures as measures
from sam_audio_jax.label.label_inputs import LabelInput
from sam_audio_jax.label.label_settings import LabelSettings
from sam_audio_jax.label.members import Member, SolvedMember
from sam_audio_jax.label.network_scores import LabelNetworks
from sam_audio_jax.label.tagging import Tagger
from sam_audio_jax.separator.prompts import Span
from sam_audio_jax.video.masks import read_masks
from sam_audio_jax.video.reading import decode_frames

NO_CHANNEL = "no channel"  # the reason of an input that names one too many

_Wave = Float[np.ndarray, " _"]
_Scores = dict[str, list[float]]  # score -> its values, one for each member


class GroupLabeller:
    """Separates and scores the members of groups."""

    def __init__(
        self,
        model: SAMAudio,
        settings: LabelSettings,
        networks: LabelNetworks,
        checkpoint: str,
        tagger: Tagger | None = None,
    ):
        """`checkpoint` is the name that labels bear; `tagger` captions what has no caption."""
        self.model, self.pipeline, self.settings = model, model.pipeline, settings
        self.networks, self.checkpoint, self.tagger = networks, checkpoint, tagger
        self.rate, self.hop = model.sample_rate, model.codec.config.hop
        self._measured: Mapping[str, Callable[[Group, Sequence[SolvedMember]], list[float]]] = {
            "silence": self._silence,
            "agreement_noise": self._agreement_of_noises,
            "agreement_prompt": self._agreement_of_prompts,
            "absent": self._absent,
            "residual_silence": self._residual_silence,
            "mask_coverage": self._mask_coverage,
        }

    def member(self, source: LabelInput) -> Member:
        """Reads an input, and captions one without a caption if there is a tagger.

        Raises UserError, or what a decoder raises, if it cannot be read.
        """
        text, spans = self.settings.kind.prompt(source)
        by_video = "video" in self.settings.kind.parts
        recording, track = source.audio, source.track
        if source.channel is not None:
            recording, track = _channel(source), None
        item = self.model.item(
            recording,
            text,
            spans,
            track=track,
            video=source.video if by_video else None,
            mask=source.mask if by_video else None,
            name=source.id,
        )
        if self.tagger is not None and not source.caption:
            caption = self.tagger.caption(item.wave, self.rate)
            source = dataclasses.replace(source, texts=(caption,))
            item = dataclasses.replace(item, text=self.settings.kind.prompt(source)[0])
        gain = item.level.gain
        recording = Audio(item.wave[None], self.rate)
        item = dataclasses.replace(
            item, recording=recording, flat=True, level=audio.AS_RECORDED, offsets=None
        )
        truth = None
        if source.true_target is not None:
            truth = np.float32(gain) * self._read_truth(source, len(item.wave))
        return Member(source=source, item=item, gain=gain, true_target=truth)

    def solve(self, group: Group, members: Sequence[Member]) -> list[SolvedMember | None]:
        """The stems of members; None where they are not finite."""
        pairs = self._separate(group, [one.item for one in members])
        return [
            SolvedMember(one, *stems) if all(np.isfinite(stem).all() for stem in stems) else None
            for one, stems in zip(members, pairs, strict=True)
        ]

    def labels(
        self,
        group: Group,
        solved: Sequence[SolvedMember],
        residual_beside: Callable[[SolvedMember], _Wave] | None = None,
    ) -> list[LabelledRecord]:
        """The labels of members.

        `residual_beside` is the residual of another recording, for the score `remix` of a member
        beside which there is none in its group.
        """
        if not solved:
            return []
        scores = self._scores(group, solved, residual_beside)
        latents = self._latents(group, solved)
        labels = []
        for row, (one, (mixture, target, residual)) in enumerate(zip(solved, latents, strict=True)):
            source, item = one.member.source, one.member.item
            frames = len(mixture)
            features = item.features
            prompt = {"kind": self.settings.prompts, "text": item.text, "spans": item.spans}
            labels.append(
                LabelledRecord(
                    mixture,
                    target,
                    residual,
                    target_texts=source.texts,
                    residual_texts=(),
                    target_active=self._active(one.target, frames),
                    residual_active=self._active(one.residual, frames),
                    category=f"{source.category}/rest",
                    target_video=None if features is None else features.astype(np.float16),
                    target_claims=source.texts,
                    id=source.id,
                    prompt=prompt | {"video": features is not None},
                    scores={name: _finite(values[row]) for name, values in scores.items()}
                    | _true_scores(one),
                    checkpoint=self.checkpoint,
                )
            )
        return labels

    def _separate(
        self, group: Group, items: Sequence[Item | None], noise: int = 0
    ) -> list[tuple[_Wave, _Wave]]:
        """The stems of items from one of the noises; of None, which is silence, no samples."""
        like = next((item for item in items if item is not None), None)
        nothing = np.zeros(0, np.float32)
        if like is None:
            return [(nothing, nothing)] * len(items)
        rows = [like if item is None else item for item in items]
        stems = self.pipeline.solve_group(group, rows, self.settings.options(noise))
        return [
            (nothing, nothing) if item is None else (one.target, one.residual)
            for item, one in zip(items, stems, strict=True)
        ]

    def _item(self, wave: _Wave, like: Item) -> Item | None:
        """A wave with the prompts of another item; None if it is silent."""
        if measures.is_silent(wave):
            return None
        try:
            item = inputs.make_item(
                wave,
                like.text,
                like.spans,
                sample_rate=self.rate,
                codec_rate=self.rate,
                name=like.name,
                level_db=self.pipeline.level_db,
            )
        except UserError:  # nothing but an offset, or too quiet to be brought to any level
            return None
        return dataclasses.replace(item, features=like.features)

    def _scores(
        self,
        group: Group,
        solved: Sequence[SolvedMember],
        residual_beside: Callable[[SolvedMember], _Wave] | None,
    ) -> _Scores:
        wanted = self.settings.scores
        scores: _Scores = {
            name: measure(group, solved)
            for name, measure in self._measured.items()
            if name in wanted
        }
        if "remix" in wanted:
            scores["remix"] = self._remix(group, solved, residual_beside)
        scores |= self.networks.scores(wanted, solved, self.rate)
        return {name: scores[name] for name in wanted}

    def _silence(self, group: Group, solved: Sequence[SolvedMember]) -> list[float]:
        del group
        as_recorded = [one.target / np.float32(one.member.gain) for one in solved]
        return [measures.silent_share(target, self.rate) for target in as_recorded]

    def _agreement_of_noises(self, group: Group, solved: Sequence[SolvedMember]) -> list[float]:
        again = self._separate(group, [one.member.item for one in solved], noise=1)
        return _agreements(again, solved)

    def _agreement_of_prompts(self, group: Group, solved: Sequence[SolvedMember]) -> list[float]:
        other = self.settings.kind.other()
        items: list[Item | None] = []
        for one in solved:
            text, spans = other.prompt(one.member.source)
            if "span" in other.parts and not spans:
                spans = self._spans_of(one.target)
            items.append(dataclasses.replace(one.member.item, text=text, spans=tuple(spans)))
        return _agreements(self._separate(group, items), solved)

    def _absent(self, group: Group, solved: Sequence[SolvedMember]) -> list[float]:
        items = [
            dataclasses.replace(
                one.member.item, text=one.member.absent_text, spans=(), features=None
            )
            for one in solved
        ]
        pairs = self._separate(group, items)
        return [
            measures.level_db(target, one.mixture)
            for (target, _), one in zip(pairs, solved, strict=True)
        ]

    def _residual_silence(self, group: Group, solved: Sequence[SolvedMember]) -> list[float]:
        items = [self._item(one.residual, one.member.item) for one in solved]
        pairs = self._separate(group, items)
        return [
            measures.level_db(target, one.target)
            for (target, _), one in zip(pairs, solved, strict=True)
        ]

    def _remix(
        self,
        group: Group,
        solved: Sequence[SolvedMember],
        residual_beside: Callable[[SolvedMember], _Wave] | None,
    ) -> list[float]:
        """Each target is separated again from a mixture with the residual of another recording.

        That is the next member's of another recording which has any, else what `residual_beside`
        gives: without another sound in it a mixture would be the target alone.
        """
        items = []
        sounding = [not measures.is_silent(one.residual) for one in solved]
        for number, one in enumerate(solved):
            others = [*range(number + 1, len(solved)), *range(number)]
            own = one.member.source.recording
            beside = (
                solved[row]
                for row in others
                if sounding[row] and solved[row].member.source.recording != own
            )
            other = next(beside, None)
            if other is not None:
                residual = other.residual
            elif residual_beside is not None:
                residual = residual_beside(one)
            else:
                raise UserError("the score remix needs the residual of another recording")
            mixture = one.target + measures.fitted(residual, len(one.target))
            items.append(self._item(mixture, one.member.item))
        return _agreements(self._separate(group, items), solved)

    def _mask_coverage(self, group: Group, solved: Sequence[SolvedMember]) -> list[float]:
        del group
        return [self._coverage(one.member.source) for one in solved]

    def _coverage(self, source: LabelInput) -> float:
        if source.video is None or source.mask is None:
            raise UserError(f"{source.id} has no mask")
        _, frame = next(decode_frames(source.video, f"the video of {source.id}"))
        masks = read_masks(source.mask, source.id)
        return measures.mask_coverage(mask(frame.height, frame.width) for mask in masks)

    def _read_truth(self, source: LabelInput, samples: int) -> _Wave:
        """The true target, as long as the mixture."""
        recording = inputs.read(str(source.true_target), name=f"the true target of {source.id}")
        wave, _, _ = inputs.to_mono(recording, source.id)
        wave = audio.resample(wave, recording.sample_rate, self.rate)
        if len(wave) != samples:
            raise UserError(
                f"the true target of {source.id} has {len(wave)} samples at {self.rate} Hz, the "
                f"mixture {samples}"
            )
        return wave

    def _spans_of(self, wave: _Wave) -> list[Span]:
        """The spans in which a wave sounds, by the rule of training."""
        active = self._active(wave, -(-len(wave) // self.hop))
        return span_prompts.positive(active, self.rate / self.hop)

    def _active(self, wave: _Wave, frames: int) -> Bool[np.ndarray, " frames"]:
        whole = np.zeros(frames * self.hop, np.float32)
        whole[: len(wave)] = wave
        return energy.activity(whole, self.rate, self.hop)

    def _latents(
        self, group: Group, solved: Sequence[SolvedMember]
    ) -> list[tuple[Float16[np.ndarray, "_ channels"], ...]]:
        """The latents of mixture, target and residual of each member, without padding."""
        waves = [(one.mixture, one.target, one.residual) for one in solved]
        long_audio = self.pipeline.long_audio
        if group.frames > long_audio.longest:
            return [
                tuple(np.asarray(long_audio.encode(wave)).astype(np.float16) for wave in three)
                for three in waves
            ]
        rows = np.zeros((3 * group.rows, group.frames * self.hop), np.float32)
        flat = [wave for three in waves for wave in three]
        for row, wave in zip(rows, flat, strict=False):
            whole = pad_to_hop(wave, self.hop)
            row[: len(whole)] = whole
        latents: Any = self.pipeline.compiled.on_batch(encode_mixture, rows)
        latents = np.asarray(latents).astype(np.float16)
        frames = [self.pipeline.frames(one.member.item) for one in solved]
        return [
            tuple(latents[3 * row + signal, :count] for signal in range(3))
            for row, count in enumerate(frames)
        ]


def _channel(source: LabelInput) -> Audio:
    """The one channel of a recording that an input names.

    Raises UnusableError for one that is not there.
    """
    found = inputs.read(source.audio, name=source.id, track=source.track)
    channel, there = source.channel or 1, len(found.samples)
    if channel > there:
        raise UnusableError(f"{source.audio} has no channel {channel}, it has {there}", NO_CHANNEL)
    return dataclasses.replace(found, samples=found.samples[channel - 1 : channel])


def _agreements(
    pairs: Sequence[tuple[_Wave, _Wave]], solved: Sequence[SolvedMember]
) -> list[float]:
    """How the targets that were separated again agree with the first ones."""
    return [
        measures.agreement_db(target, one.target)
        for (target, _), one in zip(pairs, solved, strict=True)
    ]


def _finite(value: float) -> float | None:
    """A score as it is stored: one that is not finite is none."""
    return value if math.isfinite(value) else None


def _true_scores(one: SolvedMember) -> dict[str, float]:
    """SI-SDR of a target against the true one, where it is known, and that over the mixture's."""
    truth = one.member.true_target
    if truth is None:
        return {}
    found = measures.agreement_db(one.target, truth)
    return {
        "true_sisdr": found,
        "true_sisdri": found - measures.agreement_db(one.mixture, truth),
    }
