"""A labelling run over a manifest: in shards, shared by processes, resumable at any kill.

Shard `n` holds the results of inputs `n * per_shard` onwards and is written whole or not at all, so
that every input has exactly one result, whatever was killed. What is in it follows from the
manifest, the settings and the weights alone. Process p of N makes every N-th shard; none waits for
another, and the last one to end finishes the folder.
"""

import collections
import concurrent.futures
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm
from jaxtyping import Float

from sam_audio_jax.config import to_dict
from sam_audio_jax.data.labels import (
    FORMAT,
    INDEX,
    PLAN,
    PROBE_FRAMES,
    SCORES,
    SHARDS,
    LabelledRecord,
    pack_label,
    shard_path,
    write_scores,
    write_shard,
)
from sam_audio_jax.data.likeness import Present
from sam_audio_jax.data.recording import LINE
from sam_audio_jax.data.refusals import Refusal
from sam_audio_jax.encoders.audio_tower import latents_probe
from sam_audio_jax.errors import UnusableError, UserError, describe
from sam_audio_jax.files import (
    check_format,
    check_writable,
    is_part,
    iter_jsonl,
    json_differences,
    read_object,
    write_json,
    writing_to,
)
from sam_audio_jax.infer.batch.lengths import READERS, count_samples
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.effective_settings import effective_settings
from sam_audio_jax.infer.other_networks import identity
from sam_audio_jax.label import label_measures, label_page
from sam_audio_jax.label.group_labels import GroupLabeller
from sam_audio_jax.label.label_inputs import LabelInput, LabelManifest
from sam_audio_jax.label.members import Member, SolvedMember
from sam_audio_jax.nn.fingerprint import fingerprint, in_saved_form
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.progress_bar import progress_bar

ABSENT, ABSENT_TRIES = 7, 50  # generator (seed, ABSENT, line); captions that are drawn from it
PARTNERS = 20  # inputs that are tried for a residual to remix with
# Reasons under which inputs without a label are counted.
UNREADABLE, NOT_FINITE = "cannot be read", "the separation is not finite"


Result = LabelledRecord | Refusal


def make_plan(labeller: GroupLabeller, manifest: LabelManifest) -> dict[str, Any]:
    """What all records of a folder depend on, as plain JSON."""
    model, settings = labeller.model, labeller.settings
    codec = model.codec.config
    return {
        "format": FORMAT,
        "kind": "labelled",
        "checkpoint": labeller.checkpoint,
        "weights": fingerprint(model.pipeline.networks),
        "settings": to_dict(settings),
        "separation": effective_settings(model.pipeline, settings.options(0)),
        "scorers": {name: identity(scorer) for name, scorer in labeller.networks.scorers.items()},
        "manifest": manifest.digest,
        "inputs": len(manifest.inputs),
        "sample_rate": codec.sample_rate,
        "hop": codec.hop,
        "channels": codec.codebook_dim,
        "probe": list(latents_probe(model.codec, PROBE_FRAMES)),
        "video_width": model.pipeline.video_width if "video" in settings.kind.parts else 0,
    }


def check_label_folder(out: pathlib.Path, plan: dict[str, Any]) -> None:
    """Raises UserError unless `out` is missing, empty, or of a run of the same plan.

    It must also be possible to write there.
    """
    check_writable(out, "--out")
    if not out.exists() or all(is_part(path.name) for path in out.iterdir()):
        return
    if not (out / PLAN).is_file():
        raise UserError(f"{out} holds other files and no pseudo-labels")
    saved = read_object(out / PLAN)
    check_format(out / PLAN, saved, FORMAT)
    if isinstance(settings := saved.get("settings"), dict):  # maybe older than "phrases"
        saved["settings"] = {"phrases": False} | settings
    now = in_saved_form(json.loads(json.dumps(plan)), saved)
    if "separation" not in saved:  # an earlier version did not save how its model separates
        now.pop("separation", None)
    # It may have moved: its weights are compared, which say more than the probe of its codec.
    for name in now.keys() - {"checkpoint", "probe"}:
        for key, old, new in json_differences(name, saved.get(name), now[name]):
            raise UserError(
                f"{out} holds labels with another {key}: {old!r}, not {new!r}; choose another "
                "folder"
            )


def label(
    labeller: GroupLabeller,
    manifest: LabelManifest,
    out: pathlib.Path,
    plan: dict[str, Any],
    rank: ProcessRank | None = None,
) -> bool:
    """Labels the shards of this process that are not there; returns whether the folder is finished.

    Raises UserError for a folder of another plan, and while another run writes to it.
    """
    rank = rank or ProcessRank()
    check_label_folder(out, plan)
    with writing_to(out, writer=rank.index, writers=rank.count):
        return _label_shards(labeller, manifest, out, plan, rank)


def _label_shards(
    labeller: GroupLabeller,
    manifest: LabelManifest,
    out: pathlib.Path,
    plan: dict[str, Any],
    rank: ProcessRank,
) -> bool:
    write_json(out / PLAN, plan)
    run = _Run(labeller, manifest)
    per_shard = labeller.settings.per_shard
    shards = -(-len(manifest.inputs) // per_shard)
    own = range(rank.index, shards, rank.count)
    total = sum(len(run.numbers(shard)) for shard in own)
    title = "label" if rank.count == 1 else f"label {rank.index}/{rank.count}"
    with progress_bar(total=total, unit="input", desc=title) as bar:
        for shard in own:
            path = shard_path(out, shard)
            if not path.is_file():
                results = run.shard(shard, bar)
                labels = [pack_label(one) for one in results if isinstance(one, LabelledRecord)]
                inputs = [manifest.inputs[number] for number in run.numbers(shard)]
                entries = [_entry(*pair) for pair in zip(inputs, results, strict=True)]
                write_shard(path, labels, entries)
            else:
                bar.update(len(run.numbers(shard)))
    there = {int(path.stem) for path in out.glob(SHARDS)}
    if not there >= set(range(shards)):
        return False
    finish(labeller, out, plan, shards)
    return True


def finish(labeller: GroupLabeller, out: pathlib.Path, plan: dict[str, Any], shards: int) -> None:
    """Writes what is made from all shards; `labels.json` last, as it says that all is there."""
    write_scores(out, shards)
    frames = [entry["frames"] for _, entry in iter_jsonl(out / SCORES) if "frames" in entry]
    index = plan | {"shards": shards, "samples": max(frames, default=0) * plan["hop"]}
    label_page.write_page(out, index, labeller.model)
    write_json(out / INDEX, index)


def _entry(source: LabelInput, result: Result) -> dict[str, Any]:
    """What a shard says of one input."""
    entry = {"id": source.id, "line": source.number, "text": source.caption}
    if isinstance(result, Refusal):
        return entry | {"reason": result.reason, "detail": result.text}
    entry["text"] = next(iter(result.target_texts), "")  # of the tagger, where there was none
    return entry | {"frames": len(result.mixture), "scores": dict(result.scores)}


def _refusal(error: Exception) -> Refusal:
    """What an error of one recording is counted under."""
    reason = error.reason if isinstance(error, UnusableError) else UNREADABLE
    return Refusal(reason, describe(error))


class _Run:
    """Makes the results of shards."""

    def __init__(self, labeller: GroupLabeller, manifest: LabelManifest):
        self.labeller, self.inputs = labeller, manifest.inputs
        self.settings, self.pipeline = labeller.settings, labeller.pipeline
        tags = [] if labeller.tagger is None else [*labeller.tagger.phrases]
        self.captions = manifest.captions or tags
        self.position = {one.number: position for position, one in enumerate(self.inputs)}
        self.texts_of = collections.defaultdict(set)  # recording -> all that is true of it
        for one in self.inputs:
            self.texts_of[one.recording] |= set(one.texts)

    def numbers(self, shard: int) -> range:
        """The numbers of the inputs of a shard."""
        first = shard * self.settings.per_shard
        return range(first, min(first + self.settings.per_shard, len(self.inputs)))

    def shard(self, shard: int, bar: tqdm.tqdm) -> list[Result]:
        """The results of all inputs of a shard, in their order."""
        results: dict[int, Result] = {}
        frames: dict[int, int] = {}
        inputs = [self.inputs[number] for number in self.numbers(shard)]
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            measured = list(pool.map(self._frames, inputs))
        for number, found in zip(self.numbers(shard), measured, strict=True):
            if isinstance(found, Refusal):
                results[number] = found
                bar.update()
            else:
                frames[number] = found
        order = list(frames)
        for group in self.pipeline.plan([frames[number] for number in order]):
            numbers = [order[position] for position in group.items]
            results |= self._group(group, numbers, frames)
            bar.update(len(numbers))
        return [results[number] for number in self.numbers(shard)]

    def _frames(self, one: LabelInput) -> int | Refusal:
        """The latent frames of an input, by its header, or why it cannot have a label."""
        if one.audio is None:
            return Refusal(LINE, one.reason)
        if reason := self.settings.missing(one):
            return Refusal(reason, reason)
        try:
            samples, rate = count_samples(one.audio, one.track)
        except Exception as error:  # of a decoder, too: it is this recording's alone
            return _refusal(error)
        if refusal := self._too_long(one, samples / rate):
            return refusal
        codec = self.labeller.model.codec.config
        return codec.frames(math.ceil(samples * codec.sample_rate / rate))

    def _too_long(self, one: LabelInput, seconds: float) -> Refusal | None:
        if seconds <= self.settings.longest_s:
            return None
        reason = f"longer than {self.settings.longest_s:g} s"
        return Refusal(reason, f"{one.audio} has {seconds:.1f} s")

    def _group(
        self, group: Group, numbers: Sequence[int], frames: dict[int, int]
    ) -> dict[int, Result]:
        """The results of a group; an input of another length than its header says is alone."""
        members, results = {}, {}
        for number in numbers:
            member = self._member(self.inputs[number])
            if isinstance(member, Refusal):
                results[number] = member
            else:
                members[number] = member
        planned = [n for n in members if self.pipeline.frames(members[n].item) == frames[n]]
        results |= self._label(group, {number: members[number] for number in planned})
        for number in members.keys() - set(planned):
            (alone,) = self.pipeline.plan([self.pipeline.frames(members[number].item)])
            results |= self._label(alone, {number: members[number]})
        return results

    def _member(self, one: LabelInput) -> Member | Refusal:
        """An input, read, or why it cannot be."""
        try:
            member = self.labeller.member(one)
        except Exception as error:  # of a decoder, too: it is this recording's alone
            return _refusal(error)
        seconds = len(member.item.wave) / self.labeller.rate
        if refusal := self._too_long(member.source, seconds):  # its header says less
            return refusal
        if "absent" not in self.settings.scores:
            return member
        if not (text := self._absent_text(member.source)):
            return Refusal(*["no caption that is surely absent, which the score absent needs"] * 2)
        return dataclasses.replace(member, absent_text=text)

    def _absent_text(self, one: LabelInput) -> str:
        """A caption of the manifest that cannot be true of a recording; "" if none was found."""
        present = Present(self.texts_of[one.recording] | set(one.texts))
        rng = np.random.default_rng((self.settings.seed, ABSENT, one.number))
        for _ in range(ABSENT_TRIES):
            text = self.captions[int(rng.integers(len(self.captions)))]
            if not present.may_include(text):
                return text
        return ""

    def _label(self, group: Group, members: dict[int, Member]) -> dict[int, Result]:
        """The results of members of one shape.

        Those that together cannot be labelled, as one is too short for a network, are one by one.
        """
        if not members:
            return {}
        try:
            solved = dict(
                zip(members, self.labeller.solve(group, list(members.values())), strict=True)
            )
            finite = {n: one for n, one in solved.items() if one is not None}
            labels = self.labeller.labels(group, list(finite.values()), self._residual_beside)
            results = {n: Refusal(NOT_FINITE, NOT_FINITE) for n in solved.keys() - finite.keys()}
            return results | dict(zip(finite, labels, strict=True))
        except UserError as error:
            if len(members) == 1:
                return dict.fromkeys(members, Refusal("cannot be labelled", str(error)))
            alone: dict[int, Result] = {}
            for number, member in members.items():
                alone |= self._label(group, {number: member})
            return alone

    def _residual_beside(self, one: SolvedMember) -> Float[np.ndarray, " samples"]:
        """The residual of the next input whose recording is another one and can be separated.

        Raises UserError if there is none.
        """
        number, count = self.position[one.member.source.number], len(self.inputs)
        tried = 0
        for step in range(1, count):
            other = self.inputs[(number + step) % count]
            if tried == PARTNERS:
                break
            is_same = other.recording == one.member.source.recording
            if is_same or isinstance(self._frames(other), Refusal):
                continue
            tried += 1
            residual = self._residual(other)
            if residual is not None:
                return residual
        raise UserError("no other recording to remix with, which the score remix needs")

    def _residual(self, one: LabelInput) -> Float[np.ndarray, " samples"] | None:
        """The residual of an input that is separated alone; None if it has none, or is silent."""
        member = self._member(one)
        if isinstance(member, Refusal):
            return None
        (group,) = self.pipeline.plan([self.pipeline.frames(member.item)])
        (solved,) = self.labeller.solve(group, [member])
        if solved is None or label_measures.is_silent(solved.residual):
            return None
        return solved.residual
