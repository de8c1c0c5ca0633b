"""What the separator is trained on (spec/data_engine.md): sources, mixing, prompts, cache."""

import dataclasses

from sam_audio_jax.config import FREE
from sam_audio_jax.errors import UserError

# fields that decide what a mixture sounds like; the others only concern prompts and reading
MIXING = (
    *("manifests", "split", "seconds", "recipes", "snr_db", "stem_gain_db", "level_db"),
    *("second_share", "target_repeats", "residual_repeats", "speed", "speed_share", "tilt_db"),
    "seed",
)
KINDS = ("speech", "sfx", "instrument", "song", "stem", "rest", "any")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Material, mixing, prompts and lengths of the examples that the separator is trained on.

    A mixture is drawn by a recipe from the recordings of `manifests`. Fields up to `tilt_db`, and
    `seed`, decide how it sounds: a latent cache is made with them (`launch/prepare.py`). Fields
    from `caption_share` to `max_spans` decide what text and spans it is asked for with, and may be
    others in every run over one cache. A share is a probability; values are ours where no comment
    says published.

    Examples last `seconds` and a batch has as many as the run's `batch` says. With a `token_budget`
    every batch has a length of `buckets_s` instead, and as many examples as the budget holds; their
    own lengths are uniform from the bucket before (for the first: from half of it) to theirs.
    `seconds` then only says how long the records of a cache are, of which examples are crops, and
    `short_share` says nothing.

    Raises `UserError` for an unknown kind of sound and for values that contradict each other.
    """

    manifests: tuple[str, ...] = ()  # none: the sound embedded in the package
    split: str = "train"
    seconds: float = 8.0  # of one example, rounded to whole frames of the codec
    # (target, residual, weight); kinds: speech sfx instrument song stem (rest = its song) any
    recipes: tuple[tuple[str, str, float], ...] = (
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
    snr_db: tuple[float, float] = (-10.0, 10.0)  # of active levels; published: -15 to 15
    stem_gain_db: tuple[float, float] = (-5.0, 5.0)  # published; on a stem's own level in its song
    level_db: tuple[float, float] = (-34.0, -18.0)  # active RMS of the target, dBFS
    second_share: float = 0.2  # residuals that are two sounds at once
    target_repeats: float = 0.3  # targets repeated to the end instead of one to three events
    residual_repeats: float = 0.65  # the same of residuals
    speed: float = 0.1  # largest relative change of speed and pitch together
    speed_share: float = 0.5
    tilt_db: float = 6.0  # largest boost or cut of the highs
    caption_share: float = 0.5  # texts that are the caption itself, not one of its alternatives
    text_dropout: float = 0.3  # published
    drop_any_text: bool = False  # published: True; False: only where spans tell the halves apart
    span_share: float = 0.5  # examples that show spans
    negative_share: float = 0.1  # of those, examples that also show where the target is silent
    subset_share: float = 0.15  # of those, examples that show only some of the spans
    jitter_s: float = 0.08  # largest error of a span's bounds
    max_spans: int = 8
    short_share: float = 0.1  # examples shorter than `seconds`, padded
    token_budget: int = 0  # frames of a batch, padding counts; published, fine-tuning of small,
    # base, large: 96, 120, 144 thousand; 0: all examples last `seconds`
    buckets_s: tuple[float, ...] = ()  # lengths of a batch under the budget, rising
    bucket_shares: tuple[float, ...] = ()  # of all frames, one per bucket; empty: equal ones
    row_multiple: int = 8  # examples of a bucket's batch are a multiple of this
    text_tokens: int = 40
    tokenizer: str = "byt5"
    cache: str = dataclasses.field(default="", metadata=FREE)  # folder of latents (prepare.py)
    swap_share: float = 0.4  # of cached examples, target and residual exchanged
    workers: int = dataclasses.field(default=0, metadata=FREE)  # processes; 0: a thread
    seed: int = 0

    def __post_init__(self):
        for target, residual, weight in self.recipes:
            if target not in KINDS or residual not in KINDS or weight < 0:
                raise UserError(
                    f"data.recipes has {(target, residual, weight)}; kinds are {', '.join(KINDS)}"
                )
        if self.snr_db[0] > self.snr_db[1] or self.level_db[0] > self.level_db[1]:
            raise UserError(f"data.snr_db={self.snr_db}, level_db={self.level_db}: low before high")
        if self.seconds <= 0 or self.max_spans < 1 or self.text_tokens < 1:
            raise UserError("data.seconds, data.max_spans and data.text_tokens must be positive")
        self._check_buckets()

    def _check_buckets(self) -> None:
        if self.token_budget < 0 or self.row_multiple < 1:
            raise UserError(
                f"data.token_budget={self.token_budget} must be 0 or more and "
                f"data.row_multiple={self.row_multiple} 1 or more"
            )
        if bool(self.token_budget) != bool(self.buckets_s):
            raise UserError(
                f"data.token_budget={self.token_budget} and data.buckets_s={self.buckets_s} need "
                "each other"
            )
        lengths, shares = self.buckets_s, self.bucket_shares
        if list(lengths) != sorted(set(lengths)) or min(lengths, default=1) <= 0:
            raise UserError(f"data.buckets_s={lengths} must be positive and rise")
        if shares and (len(shares) != len(lengths) or min(shares) <= 0):
            raise UserError(
                f"data.bucket_shares={shares} must be positive, one for each of "
                f"data.buckets_s={lengths}"
            )
