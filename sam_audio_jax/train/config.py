"""The whole experiment: every network's config plus how it is trained (docs/training.md)."""

import dataclasses
import re
import typing
from typing import Annotated, Literal

from sam_audio_jax.bounds import (
    Checked,
    Count,
    Decay,
    Depth,
    NonNegative,
    Positive,
    PositiveCount,
    Range,
    Seed,
    Share,
    Size,
)
from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.codec.discriminator import DiscriminatorConfig
from sam_audio_jax.codec.loss import CodecLossConfig
from sam_audio_jax.config import FREE
from sam_audio_jax.data.captioned_latents import CaptionedConfig
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.excerpts import ExcerptConfig
from sam_audio_jax.data.ratings import RatingsConfig
from sam_audio_jax.encoders.audio_tower import AudioTowerConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.errors import UserError
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.scorers.cnn14 import Cnn14Config
from sam_audio_jax.scorers.judge import JudgeConfig
from sam_audio_jax.separator.flow import FlowConfig, SamplerConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.separator.refined_loss import RefinedConfig
from sam_audio_jax.separator.representation_alignment import Interpolation


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(Checked, where="optim"):
    """AdamW with a linear warm-up, then a constant rate."""

    peak_lr: Positive = 1e-4  # published
    warmup_steps: Count = 5_000  # published
    beta1: Decay = 0.9  # ours
    beta2: Decay = 0.95  # ours
    eps: Positive = 1e-8  # ours
    # Published; norms, biases, gates, tables, embeddings are exempt (ours).
    weight_decay: NonNegative = 0.1
    clip_norm: Positive = 1.0  # largest global gradient norm (ours)
    ema_decay: Decay = 0.999  # published for fine-tuning
    accumulate: Size = 1  # micro-batches of a batch, run one after the other to save memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanOptimConfig(OptimConfig):
    """AdamW for codec and discriminators alike, DAC's numbers (docs/codec.md, "Training")."""

    warmup_steps: Count = 0  # published
    beta1: Decay = 0.8  # published
    beta2: Decay = 0.99  # published
    weight_decay: NonNegative = 0.01  # published; of every parameter
    clip_norm: Positive = 1_000.0  # published; of the generator
    discriminator_clip_norm: Positive = 10.0  # published
    # Published; factor on the rate after every step.
    rate_decay: Annotated[float, Range(0, 1, (False, True))] = 0.999996

    def __post_init__(self):
        super().__post_init__()
        if self.accumulate != 1:
            raise UserError(f"optim.accumulate={self.accumulate} must be 1 for codec training")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Checked, where="checkpoint"):
    """When to save and what to keep. The last step is always saved."""

    every_steps: Count = dataclasses.field(default=1_000, metadata=FREE)  # 0: not by step count
    # 0: not by the clock.
    every_minutes: NonNegative = dataclasses.field(default=10.0, metadata=FREE)
    # Newest checkpoints kept.
    keep_last: PositiveCount = dataclasses.field(default=3, metadata=FREE)
    # Best evaluated ones kept besides.
    keep_best: Count = dataclasses.field(default=1, metadata=FREE)
    # Multiples kept for ever; 0: none.
    keep_every: Count = dataclasses.field(default=0, metadata=FREE)
    best_metric: str = dataclasses.field(default="", metadata=FREE)  # key of the evaluation
    best_is: Literal["highest", "lowest"] = dataclasses.field(default="highest", metadata=FREE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Checked, where=""):
    """The fields of any experiment that the training loop reads."""

    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig, metadata=FREE)
    # Items of a step, over all devices; 0: by data.batches.token_budget.
    batch: Annotated[int, Range(0, 1_000_000)] = 1024
    # Of the optimiser, in all.
    steps: PositiveCount = dataclasses.field(default=500_000, metadata=FREE)
    # Of training; 0: no limit.
    max_minutes: NonNegative = dataclasses.field(default=0.0, metadata=FREE)
    eval_every: Count = dataclasses.field(default=0, metadata=FREE)  # steps; 0: at the end only
    # Steps that are evaluated besides.
    eval_at: tuple[PositiveCount, ...] = dataclasses.field(default=(), metadata=FREE)
    # Steps between lines of metrics.
    log_every: PositiveCount = dataclasses.field(default=20, metadata=FREE)
    # Steps in a row that are not finite and end it.
    max_skipped: PositiveCount = dataclasses.field(default=50, metadata=FREE)
    seed: Seed = 0  # of weights, noise and dropout; the data has its own

    def __post_init__(self):
        super().__post_init__()
        name, multiple = self.row_multiple
        if multiple < 1:
            raise UserError(f"{name}={multiple} must be 1 or more")
        if multiple % self.optim.accumulate:
            raise UserError(
                f"{name}={multiple} must be a multiple of optim.accumulate={self.optim.accumulate}"
            )

    @property
    def row_multiple(self) -> tuple[str, int]:
        """Field and number of which the rows of every batch are a multiple."""
        return "batch", self.batch


CodecPart = Literal["encoder", "in_proj", "out_proj", "decoder"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecTrainConfig(RunConfig):
    """Training of the codec from scratch (docs/codec.md, "Training")."""

    codec: CodecConfig = dataclasses.field(default_factory=CodecConfig)
    loss: CodecLossConfig = dataclasses.field(default_factory=CodecLossConfig)
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    data: ExcerptConfig = dataclasses.field(default_factory=ExcerptConfig)
    optim: GanOptimConfig = dataclasses.field(default_factory=GanOptimConfig)
    batch: Size = 72  # published
    steps: PositiveCount = dataclasses.field(default=400_000, metadata=FREE)  # published
    init_from: str = ""  # codec to start from: workdir, shipped name; empty: random
    # Parts that do not learn. With `encoder` and `in_proj` the latents stay what separators know.
    frozen: tuple[CodecPart, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        odd = [rate for rate in self.codec.encoder_rates if rate % 2]
        if odd:  # the reference's padding loses a sample there, and a latent frame after it
            raise UserError(
                f"codec.encoder_rates={self.codec.encoder_rates} has {odd[0]}: a codec is trained "
                "with even rates only, an odd one loses the last frame"
            )
        if self.frozen and not self.init_from:
            raise UserError(f"frozen has {self.frozen[0]}, but init_from names no weights of it")
        if self.loss.mask and self.batch < 2:
            raise UserError(
                f"loss.mask mixes the rows of a batch: batch={self.batch} must be 2 or more"
            )


# "text_vectors" are the text model's embeddings of tokens.
JudgePart = Literal[
    "wave_encoder", "project", "audio", "text", "text_vectors", "widen_text", "narrow_text"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeTrainConfig(RunConfig):
    """Training of a judge on a table of ratings (docs/scoring.md, "Training a judge").

    Published is that the encoder of PE-AV is frozen, and that ratings are standardised. The loss,
    the optimiser, its rate, the batch and the number of steps are ours.
    """

    judge: JudgeConfig = dataclasses.field(default_factory=lambda: JudgeConfig(mask_attention=True))
    data: RatingsConfig = dataclasses.field(default_factory=RatingsConfig)
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(warmup_steps=500, weight_decay=0.01)  # ours
    )
    # Of standardised scores, the mean over the axes (ours). "contrast" comes before them: it aligns
    # each separated sound with its text, whatever the ratings.
    loss: Literal["l1", "mse", "contrast"] = "l1"
    # Parts that do not learn.
    frozen: tuple[JudgePart, ...] = ("wave_encoder", "project", "audio", "text")
    init_from: str = ""  # a judge to start from: a folder or Hugging Face id
    # A PE-A-Frame, or a folder of one, whose encoders of sound and text are taken.
    encoders_from: str = ""
    codec_from: str = ""  # a codec whose encoder is taken: shipped name, workdir, model folder
    # The text model's embeddings start as these word vectors, reduced to its width: `wordllama`,
    # installed, or its folder. Its tokenizer is `data.tokenizer`.
    vectors_from: str = ""
    # With init_from: mean and spread of the ratings from this table, not those of that judge.
    rescale: bool = False
    random_frozen: bool = False  # frozen parts may have random weights: for tests and plans
    batch: Size = 64  # ours
    steps: PositiveCount = dataclasses.field(default=20_000, metadata=FREE)  # ours
    eval_every: Count = dataclasses.field(default=1_000, metadata=FREE)

    def __post_init__(self):
        super().__post_init__()
        if self.loss == "contrast" and (self.batch < 2 or self.optim.accumulate > 1):
            raise UserError(
                f"loss=contrast compares the rows of a batch: batch={self.batch} must be 2 or more "
                f"and optim.accumulate={self.optim.accumulate} 1"
            )
        named = [n for n in ("init_from", "encoders_from", "codec_from") if getattr(self, n)]
        if len(named) > 1:
            raise UserError(f"{' and '.join(named)} both name weights to start from: leave one")
        if self.init_from and self.vectors_from:
            raise UserError(
                f"vectors_from={self.vectors_from} has no effect beside init_from={self.init_from},"
                " which has a text model of its own: leave one"
            )
        sources = {
            "init_from": set(typing.get_args(JudgePart)),
            "encoders_from": {"wave_encoder", "project", "audio", "text", "text_vectors"},
            "codec_from": {"wave_encoder"},
        }
        trained = set().union(*(sources[name] for name in named))
        if self.vectors_from:
            trained.add("text_vectors")
        if not self.random_frozen and (bare := [n for n in self.frozen if n not in trained]):
            raise UserError(
                f"frozen has {bare[0]}, but no weights of it are named: give init_from, "
                "encoders_from or codec_from, or leave it out of frozen"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioTextTrainConfig(RunConfig):
    """Training of an audio tower among word vectors (docs/training.md, "Audio tower"); all ours."""

    audio_tower: AudioTowerConfig = dataclasses.field(default_factory=AudioTowerConfig)
    data: CaptionedConfig = dataclasses.field(default_factory=CaptionedConfig)
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(peak_lr=1e-3, warmup_steps=100)
    )
    # The word vectors: a text encoder without layers, alone in a folder or that of a model.
    text_checkpoint: str = ""
    batch: Size = 64
    steps: PositiveCount = dataclasses.field(default=2_000, metadata=FREE)
    eval_every: Count = dataclasses.field(default=250, metadata=FREE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LikeConfig(Checked, where="like"):
    """Prompts by example in a separator's training (docs/training.md, "Prompts by example").

    An example prompt is the audio tower's vector of the target's own latents, as one more token of
    the text. All values are ours; the blend is that of CLAPSep (arXiv 2402.17455).
    """

    share: Share = 0.0  # rows that have one
    alone: Share = 0.5  # of those, rows whose text is left out
    blend: Share = 0.5  # of those, vectors that are blended with the mean of the text, 0 to 1 of it
    # Numbers of a vector that are left out, so that it does not give the target away.
    dropout: Decay = 0.2
    tower_checkpoint: str = ""  # folder of an audio tower, or of a model; "random": for tests
    tower: AudioTowerConfig = dataclasses.field(default_factory=AudioTowerConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentConfig(Checked, where="alignment"):
    """Alignment of a hidden state with an event model on the clean target.

    See docs/training.md, "Alignment".

    Published: the loss, three layers, the kind of teacher, and a weight of 1 in pre-training.
    """

    weight: NonNegative = 0.0  # 0: off, as in fine-tuning
    layer: Annotated[int, Range(0, 1_000)] = 0  # blocks before the hidden state; 0: a third of them
    hidden: Size = 2048  # of the head
    teacher_checkpoint: str = ""  # .pth or .safetensors of a Cnn14; "random": for tests and plans
    teacher: Cnn14Config = dataclasses.field(default_factory=Cnn14Config)
    tensor: Literal["embedding", "trunk"] = "embedding"  # of the teacher's segments
    interpolation: Interpolation = "repeat"  # of segments for frames between them

    def layer_of(self, depth: int) -> int:
        """Blocks before the hidden state, of `depth` in all."""
        return self.layer or max(round(depth / 3), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParametrisationConfig(Checked, where="parametrisation"):
    """How initial values and rates depend on the size of the transformer; ours.

    See train/parametrisation.py and docs/scaling.md, "Parametrisations".
    """

    # mup_depth also scales what each block adds.
    kind: Literal["standard", "mup", "mup_depth"] = "standard"
    # Sizes at which all kinds are the same: those of the training whose rate was tuned.
    base_width: Size = 256
    base_head_dim: Size = 64
    base_depth: Depth = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig(Checked, where="lora"):
    """Low-rank adapters beside frozen kernels, which alone are trained (nn/lora.py); all ours."""

    rank: Annotated[int, Range(0, 1_024)] = 0  # 0: no adapters, the network itself is trained
    alpha: Positive = 16.0  # an adapter counts alpha / rank
    # Linear layers that get one: a regular expression of their whole path.
    layers: str = r"separator\.dit\.blocks\.(attention|cross_attention|mlp)\.\w+"

    def __post_init__(self):
        super().__post_init__()
        try:
            re.compile(self.layers)
        except re.error as error:
            raise UserError(
                f"lora.layers={self.layers!r} is no regular expression: {error}"
            ) from None

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.alpha / max(self.rank, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Training of the separator on a frozen codec; the defaults are pre-training of `small`."""

    codec: CodecConfig = dataclasses.field(default_factory=CodecConfig)
    text: T5Config = dataclasses.field(default_factory=T5Config)
    separator: SeparatorConfig = dataclasses.field(default_factory=SeparatorConfig)
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    parametrisation: ParametrisationConfig = dataclasses.field(
        default_factory=ParametrisationConfig
    )
    alignment: AlignmentConfig = dataclasses.field(default_factory=AlignmentConfig)
    refined: RefinedConfig = dataclasses.field(default_factory=RefinedConfig)
    like: LikeConfig = dataclasses.field(default_factory=LikeConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    codec_checkpoint: str = "tiny"  # shipped name, workdir, upstream folder; "random": for tests
    init_from: str = ""  # weights to start from, named likewise; empty: random
    # Weights of the text encoder where `init_from` is empty or has one of other sizes: t5-base, a
    # folder of `sam-audio convert`, or a model, named as above; "random": for tests and plans.
    text_checkpoint: str = ""
    # A model folder with a vision tower, by which `sam-audio prepare` makes the video features of
    # recordings with a masked video; empty: only those that manifests name.
    vision_checkpoint: str = ""
    train_text: bool = False  # False: the text encoder stays as it starts (published)
    # Of the evaluations, and the default of the model that comes out.
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig, metadata=FREE)
    eval_bench: str = dataclasses.field(default="", metadata=FREE)  # name or folder; empty: none
    eval_limit: Count = dataclasses.field(default=0, metadata=FREE)  # its mixtures used; 0: all
    # When the mixtures are separated and scored; the held-out loss is of every evaluation.
    eval_scores: Literal["all", "last", "none"] = dataclasses.field(default="all", metadata=FREE)

    def __post_init__(self):
        super().__post_init__()
        if self.separator.channels != self.codec.codebook_dim:
            raise UserError(
                f"separator.channels={self.separator.channels} must equal "
                f"codec.codebook_dim={self.codec.codebook_dim}"
            )
        if self.text.width != self.separator.text_width:
            raise UserError(
                f"separator.text_width={self.separator.text_width} must equal "
                f"text.width={self.text.width}"
            )
        if self.alignment.layer > self.separator.dit.depth:
            raise UserError(
                f"alignment.layer={self.alignment.layer} must be at most "
                f"separator.dit.depth={self.separator.dit.depth}"
            )
        teacher = self.alignment.teacher_checkpoint or self.data.caches
        if self.alignment.weight and not teacher:
            raise UserError(
                f"alignment.weight={self.alignment.weight} needs a teacher: name a Cnn14 file as "
                "alignment.teacher_checkpoint, or a data.cache that was made with one"
            )
        if self.alignment.weight and self.data.labels.folder:
            raise UserError(
                f"alignment.weight={self.alignment.weight} needs the features of a teacher, which "
                f"the labels of data.labels.folder={self.data.labels.folder} do not have"
            )
        if self.flow.consistency_share and not self.separator.dit.step_size:
            raise UserError(
                f"flow.consistency_share={self.flow.consistency_share} needs a network that knows "
                "the size of its step: separator.dit.step_size=True"
            )
        if self.refined.weight:
            self._check_refined()
        if self.like.share:
            self._check_like()
        if self.lora.rank:
            self._check_lora()
        if self.batch and self.data.batches.token_budget:
            raise UserError(
                f"batch={self.batch} and data.batches.token_budget="
                f"{self.data.batches.token_budget} both say how many examples a batch has: one of "
                "them must be 0"
            )

    def _check_refined(self) -> None:
        """Raises `UserError` for a loss of refined stems without waves, or beside few steps."""
        named = f"refined.weight={self.refined.weight:g}"
        if self.data.encoded and not self.data.waves:
            raise UserError(
                f"{named} needs the waves of the true stems: a data.cache of `sam-audio prepare` "
                "with --data.waves, and the same flag here"
            )
        if self.flow.consistency_share:
            raise UserError(
                f"{named} needs velocities at one time, and flow.consistency_share="
                f"{self.flow.consistency_share:g} trains means over steps: one of them must be 0"
            )

    def _check_lora(self) -> None:
        """Raises `UserError` for adapters without a trained model, or beside other learning."""
        named = f"lora.rank={self.lora.rank}"
        if not self.init_from:
            raise UserError(f"{named} adapts a trained model: name one by init_from")
        if self.train_text or self.alignment.weight:
            raise UserError(
                f"{named} trains adapters alone: train_text={self.train_text} must be False and "
                f"alignment.weight={self.alignment.weight} 0"
            )

    def _check_like(self) -> None:
        """Raises `UserError` for prompts by example without a tower among the word vectors."""
        like = self.like
        if not like.tower_checkpoint:
            raise UserError(
                f"like.share={like.share} needs an audio tower: name one by like.tower_checkpoint"
            )
        if self.text.depth or self.train_text:
            raise UserError(
                f"like.share={like.share} needs frozen word vectors: text.depth={self.text.depth} "
                f"must be 0 and train_text={self.train_text} False"
            )
        sizes = (
            ("channels", like.tower.channels, "separator.channels", self.separator.channels),
            ("embedding", like.tower.embedding, "text.width", self.text.width),
        )
        for name, ours, other, theirs in sizes:
            if ours != theirs:
                raise UserError(f"like.tower.{name}={ours} must equal {other}={theirs}")

    @property
    def row_multiple(self) -> tuple[str, int]:
        if self.data.batches.token_budget:
            return "data.batches.row_multiple", self.data.batches.row_multiple
        return super().row_multiple
