"""What the separator is trained on: sources, mixtures, prompts, batches, and the cache.

Values are ours where no comment says published. A share is a probability.
"""

import dataclasses
from typing import Annotated, Literal

from sam_audio_jax.bounds import (
    Checked,
    Count,
    Decay,
    Decibels,
    NonNegative,
    Positive,
    Range,
    Seconds,
    Seed,
    Share,
    Size,
    Workers,
)
from sam_audio_jax.config import FREE
from sam_audio_jax.data.label_scores import LABEL_SCORES
from sam_audio_jax.data.recording import CATEGORIES
from sam_audio_jax.encoders.tokenizer_name import portable_name
from sam_audio_jax.errors import UserError

RECORDED = ("any", "speech", "sfx", "instrument", "music")  # kinds that are single recordings
SUM = "+"  # between the kinds of a residual that is several sounds at once
KINDS = (*RECORDED, "song", "stem", "rest", "speaker", "others")
# Targets that are a part of a piece or conversation, with the residual that is what is left of it.
PARTNERS = {"stem": "rest", "speaker": "others"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig(Checked, where="data.source"):
    """The recordings that sound is drawn from."""

    # manifest.jsonl files; without any source: the sound embedded in the package
    manifests: tuple[str, ...] = ()
    split: str = "train"  # lines of the manifests that are used; also a split of the others
    # Folders of multitrack pieces in the layout of MUSDB18 (data/multitracks.py).
    multitracks: tuple[str, ...] = ()
    # Folders of TFDS data sets that are prepared as ArrayRecord (data/tfds_source.py), and the
    # features, or after "=" the values, that are the fields of a recording.
    tfds: tuple[str, ...] = ()
    tfds_fields: tuple[tuple[str, str], ...] = (("sound", "audio"), ("caption", "caption"))
    # Decode excerpts where they are read. Else every file is decoded once, whole, into one file of
    # the cache folder: faster, for sources of up to some hours. TFDS is always streamed.
    streamed: bool = False
    # Of decoded excerpts that a process keeps, if streamed.
    cache_mb: Annotated[int, Range(0, 100_000)] = dataclasses.field(default=64, metadata=FREE)
    # Of the recordings that may be unusable; they are counted, named and left out.
    most_bad: Share = dataclasses.field(default=1.0, metadata=FREE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixConfig(Checked, where="data.mix"):
    """How two recordings become a mixture: all that decides its sound, besides source and seed.

    Raises `UserError` for an unknown kind of sound and for ranges that are not low before high.
    """

    seconds: Seconds = 8.0  # of one mixture, rounded to whole frames of the codec
    # (target, residual, weight); kinds: any speech sfx instrument music; song, stem and the rest of
    # its song; speaker and the others of a conversation. A residual may be a sum: speech+sfx.
    recipes: tuple[tuple[str, str, NonNegative], ...] = (
        ("sfx", "sfx", 0.30),
        ("speech", "sfx", 0.07),
        ("speech", "song", 0.07),
        ("speech", "speech", 0.16),
        ("song", "sfx", 0.06),
        ("song", "speech", 0.06),
        ("stem", "rest", 0.18),
        ("instrument", "any", 0.05),
        ("sfx", "any", 0.05),
    )
    snr_db: tuple[Decibels, Decibels] = (-10.0, 10.0)  # of active levels; published: -15 to 15
    # Published; on a stem's own level in its song.
    stem_gain_db: tuple[Decibels, Decibels] = (-5.0, 5.0)
    level_db: tuple[Decibels, Decibels] = (-34.0, -18.0)  # active RMS of the target, dBFS
    second_share: Share = 0.2  # residuals that are two sounds at once
    target_repeats: Share = 0.3  # targets repeated to the end instead of one to three events
    residual_repeats: Share = 0.65  # residuals repeated likewise
    speed: Decay = 0.1  # largest relative change of speed and pitch together
    speed_share: Share = 0.5  # sounds whose speed is changed
    tilt_db: Annotated[float, Range(0, 200)] = 6.0  # largest boost or cut of the highs
    # Recordings that are drawn by their caption first, so that a caption with many recordings does
    # not outweigh all others; the rest are drawn from all recordings of their kind.
    caption_draws: Share = 0.5
    # The weight of a caption there is the number of its recordings to this power; 0: all alike.
    caption_power: Share = 0.0
    # (category, largest relative change of speed) of recordings that differ from `speed`: a voice
    # that is much faster is another voice, an effect is not.
    speed_of: tuple[tuple[str, Decay], ...] = ()
    near_share: Share = 0.0  # residuals with a caption near the target's (data/likeness.py)
    # Kinds whose recordings must hold a single event, by the field `single` of the manifest, or by
    # their caption.
    single_kinds: tuple[str, ...] = ()
    filter_share: Share = 0.0  # sounds that pass through a random equaliser (data/equaliser.py)
    filter_db: Annotated[float, Range(0, 200)] = 9.0  # its largest boost or cut
    offset_share: Share = 0.0  # mixtures with a constant offset, which belongs to the residual
    # Largest offset, of the mixture's RMS. A separation removes larger ones, see docs/model.md,
    # "Level and channels".
    offset: Share = 0.05
    # Sounds that are in a room, and folders of impulse responses of rooms (data/rooms.py).
    reverb_share: Share = 0.0
    impulse_responses: tuple[str, ...] = ()
    coded_share: Share = 0.0  # sounds that went through a lossy codec (data/lossy.py)
    codecs: tuple[Literal["vorbis", "mp3"], ...] = ("vorbis", "mp3")
    # Begin a sound anywhere in a longer recording, not in its first `seconds`.
    random_start: bool = False
    # Residuals of a kind that the table of plausible pairs has for the target, and that table: JSON
    # lines with `target`, `residual` (phrases) and `weight` (data/plausible.py).
    plausible_share: Share = 0.0
    plausible: str = ""
    # What spans are made of: cells within 40 dB of the loudest one, or above -40 dBFS (published).
    silence: Literal["relative", "absolute"] = "relative"

    def __post_init__(self):
        super().__post_init__()
        for target, residual, weight in self.recipes:
            both = residual.split(SUM)
            summed = len(both) == 1 or set(both) <= {*RECORDED, "song"}
            if target not in KINDS or not set(both) <= set(KINDS) or not summed or weight < 0:
                raise UserError(
                    f"data.mix.recipes has {(target, residual, weight)}; kinds are "
                    f"{', '.join(KINDS)}, a residual may be a sum like speech+sfx, weights are 0 "
                    "or more"
                )
            bound = {*PARTNERS, *PARTNERS.values()}
            if weight and {target, *both} & bound and PARTNERS.get(target) != residual:
                pairs = " and ".join(f"{one} with {other}" for one, other in PARTNERS.items())
                raise UserError(
                    f"data.mix.recipes has {(target, residual, weight)}; parts of one piece go "
                    f"together: {pairs}, as target and residual"
                )
        for share, field in (
            ("reverb_share", "impulse_responses"),
            ("plausible_share", "plausible"),
        ):
            if getattr(self, share) and not getattr(self, field):
                raise UserError(f"data.mix.{share}={getattr(self, share)} needs data.mix.{field}")
        if self.coded_share and not self.codecs:
            raise UserError(f"data.mix.coded_share={self.coded_share} needs data.mix.codecs")
        for kind in self.single_kinds:
            if kind not in RECORDED:
                raise UserError(
                    f"data.mix.single_kinds has {kind!r}; kinds of single recordings are "
                    f"{', '.join(RECORDED)}"
                )
        for category, _ in self.speed_of:
            if category not in CATEGORIES:
                raise UserError(
                    f"data.mix.speed_of has {category!r}; categories are {', '.join(CATEGORIES)}"
                )
        for name in ("snr_db", "stem_gain_db", "level_db"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"data.mix.{name}={(low, high)} must be low before high")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig(Checked, where="data.prompts"):
    """The text and the spans of an example; runs over one cache may have different ones."""

    caption_share: Share = 0.5  # texts that are the caption itself, not one of its alternatives
    text_dropout: Share = 0.3  # texts that are left out; published
    # Any text may be left out (published); else only where spans distinguish the sources.
    drop_any_text: bool = False
    video_dropout: Share = 0.3  # videos that are left out, of data that has any; published
    span_share: Share = 0.5  # examples with spans
    negative_share: Share = 0.1  # of those, examples that also mark where the target is silent
    subset_share: Share = 0.15  # of those, examples that mark only some of the sounds
    jitter_s: Annotated[float, Range(0, 3_600)] = 0.08  # largest error of a span's bounds
    # Of one example; those with the shortest gaps are merged.
    max_spans: Annotated[int, Range(1, 10_000)] = 8
    swap_share: Share = 0.4  # of cached examples, those prompted for the residual instead
    text_tokens: Annotated[int, Range(1, 10_000)] = 40  # length of every text, cut or padded
    # Name, shipped model or folder; must fit the text encoder. The path of that of a shipped model
    # becomes its name, so that a run goes on in another installation.
    tokenizer: str = "byt5"
    # Of the pairs of examples 0 and 1, 2 and 3, ..., those that are one mixture, prompted once for
    # each of its sounds. Only where both have a name.
    pair_share: Share = 0.0
    # Examples prompted by the text of a sound that is not in them: the target is silence, the
    # residual the mixture.
    absent_share: Share = 0.0
    wording_share: Share = 0.0  # texts in other words (data/wordings.py)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "tokenizer", portable_name(self.tokenizer))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig(Checked, where="data.batches"):
    """Lengths of examples and of batches.

    Without a budget a batch has as many examples as the run's `batch` says, all `data.mix.seconds`
    long. With a `token_budget` each batch has a length of `buckets_s`, and as many examples as the
    budget holds; their own lengths are uniform from the bucket before (for the first: from
    `shortest_s`, or from half of it) to theirs. `short_share` then has no effect, nor has
    `data.mix.seconds` without a cache; with a cache it is the length of the records, of which
    examples are crops.

    Raises `UserError` for values that contradict each other.
    """

    short_share: Share = 0.1  # examples shorter than `data.mix.seconds`, padded
    # Frames of a batch, padding counts; 0: all examples last `data.mix.seconds`. Published, for
    # fine-tuning of small, base, large: 96, 120, 144 thousand.
    token_budget: Count = 0
    buckets_s: tuple[Seconds, ...] = ()  # lengths of a batch under the budget, rising
    # Of the first bucket's examples; 0: half of it.
    shortest_s: Annotated[float, Range(0, 3_600)] = 0.0
    bucket_shares: tuple[Positive, ...] = ()  # of all frames, one per bucket; empty: equal ones
    row_multiple: Size = 8  # examples of a bucket's batch are a multiple of this

    def __post_init__(self):
        super().__post_init__()
        if self.token_budget < 0 or self.row_multiple < 1:
            raise UserError(
                f"data.batches.token_budget={self.token_budget} must be 0 or more and "
                f"data.batches.row_multiple={self.row_multiple} 1 or more"
            )
        if bool(self.token_budget) != bool(self.buckets_s):
            raise UserError(
                f"data.batches.token_budget={self.token_budget} and "
                f"data.batches.buckets_s={self.buckets_s} need each other"
            )
        lengths, shares = self.buckets_s, self.bucket_shares
        if list(lengths) != sorted(set(lengths)) or min(lengths, default=1) <= 0:
            raise UserError(f"data.batches.buckets_s={lengths} must be positive and rise")
        if not 0 <= self.shortest_s <= min(lengths, default=0.0):
            raise UserError(
                f"data.batches.shortest_s={self.shortest_s} must lie between 0 and the first of "
                f"data.batches.buckets_s={lengths}"
            )
        if shares and (len(shares) != len(lengths) or min(shares) <= 0):
            raise UserError(
                f"data.batches.bucket_shares={shares} must be positive, one for each of "
                f"data.batches.buckets_s={lengths}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig(Checked, where="data.labels"):
    """Pseudo-labels as a share of the examples, and the thresholds by which labels are kept.

    A threshold that is None drops nothing. One on a score that was not computed is an error. The
    scores are explained in `data/label_scores.py`, which also has a threshold for each of them.
    """

    # Folder of labels, made by `sam-audio label`; empty: none.
    folder: str = dataclasses.field(default="", metadata=FREE)
    # Of the examples; the others come from `data.cache`, without which it must be 1.
    share: Share = 0.5
    most: Count = 0  # so many of the labels that pass, drawn by the seed; 0: all of them
    clap_target: float | None = None  # above; published: 0.35
    clap_residual: float | None = None  # below; published: 0.0
    complexity: float | None = None  # below; published: 2.5
    silence: float | None = None  # below; published: 0.95
    mask_coverage: float | None = None  # above; published: 0.02
    imagebind: float | None = None  # above; published: 0.2
    remix: float | None = None  # above, in dB
    agreement_noise: float | None = None  # above, in dB
    agreement_prompt: float | None = None  # above, in dB
    absent: float | None = None  # below, in dB of the mixture
    residual_silence: float | None = None  # below, in dB of the target
    span_iou: float | None = None  # above
    judge: float | None = None  # above, 1 to 5

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that are set, by the names of their scores."""
        values = {name: getattr(self, name) for name in LABEL_SCORES}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeConfig(Checked, where="data.blend"):
    """One of several recipes in a stream: sources, how they are mixed, and a weight."""

    name: str
    weight: NonNegative = 1.0  # share of the examples, relative to the other recipes
    # (step, weight from that step on), rising; `weight` holds before the first.
    curriculum: tuple[tuple[Count, NonNegative], ...] = ()
    source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    mix: MixConfig = dataclasses.field(default_factory=MixConfig)
    # Folder of latents of this recipe (`sam-audio prepare --recipe NAME`). All recipes have latents
    # or none has.
    cache: str = dataclasses.field(default="", metadata=FREE)
    labels: LabelConfig = dataclasses.field(default_factory=LabelConfig)  # instead of a cache

    def __post_init__(self):
        super().__post_init__()
        steps = [step for step, _ in self.curriculum]
        if steps != sorted(set(steps)):
            raise UserError(f"data.blend: steps of the curriculum of {self.name} must rise")

    def weight_at(self, step: int) -> float:
        """The weight at one step, counted from 0."""
        weight = self.weight
        for first, later in self.curriculum:
            weight = later if step >= first else weight
        return weight

    @property
    def ever_used(self) -> bool:
        """Whether it has weight at some step."""
        begins = 0 if not self.curriculum or self.curriculum[0][0] else None
        weights = [self.weight] if begins == 0 else []
        return any([*weights, *(weight for _, weight in self.curriculum)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Checked, where="data"):
    """The training data of the separator.

    `source`, `mix` and `seed` are the recipe of a mixture: a latent cache is made with them
    (`sam-audio prepare`). `prompts`, `batches` and `labels` may differ in every run over one cache.
    """

    source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    mix: MixConfig = dataclasses.field(default_factory=MixConfig)
    prompts: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    batches: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    labels: LabelConfig = dataclasses.field(default_factory=LabelConfig)
    # Several sources with rules and weights of their own, instead of `source`, `mix`, `cache` and
    # `labels`.
    blend: tuple[RecipeConfig, ...] = ()
    # Folder of latents, made by `sam-audio prepare`; empty: mixtures are made as they are read.
    cache: str = dataclasses.field(default="", metadata=FREE)
    # A cache is made with the waves of both stems, and examples of a cache have them, for a loss
    # of refined stems (`refined.weight`).
    waves: bool = False
    workers: Workers = dataclasses.field(default=0, metadata=FREE)  # processes; 0: a thread
    seed: Seed = 0  # of mixtures, prompts and order

    @property
    def caches(self) -> tuple[str, ...]:
        """The folders of latents that examples are from; none: they are waves, or labels alone."""
        return tuple(part.cache for part in self.parts if part.cache)

    @property
    def label_folders(self) -> tuple[str, ...]:
        """The folders of pseudo-labels that examples are from."""
        return tuple(part.labels.folder for part in self.parts if part.labels.folder)

    @property
    def parts(self) -> "tuple[RecipeConfig, ...] | tuple[DataConfig]":
        """The recipes that ever have any weight, or the config itself where it has no recipes."""
        return tuple(one for one in self.blend if one.ever_used) if self.blend else (self,)

    @property
    def encoded(self) -> bool:
        """Whether examples are latents."""
        return bool(self.caches or self.label_folders)

    def __post_init__(self):
        super().__post_init__()
        names = [recipe.name for recipe in self.blend]
        if len(set(names)) < len(names):
            raise UserError(f"data.blend must have different names, not {', '.join(names)}")
        for recipe in self.blend:
            if recipe.mix.seconds != self.mix.seconds:
                raise UserError(
                    f"data.blend: {recipe.name} mixes {recipe.mix.seconds:g} s, and "
                    f"data.mix.seconds={self.mix.seconds:g}: all examples of a stream are equal"
                )
        if self.labels.folder and not self.cache and self.labels.share < 1:
            raise UserError(
                f"data.labels.share={self.labels.share} leaves the other examples to data.cache, "
                "which is not given: labels are latents, and so must all examples be"
            )
        if self.waves and self.label_folders:
            raise UserError(
                f"data.waves=True needs waves of true stems, and the pseudo-labels of "
                f"{self.label_folders[0]} have none"
            )
        if self.prompts.pair_share and self.batches.token_budget and self.batches.row_multiple % 2:
            raise UserError(
                f"data.batches.row_multiple={self.batches.row_multiple} must be even, so that a "
                "batch has both examples of a pair (data.prompts.pair_share)"
            )
