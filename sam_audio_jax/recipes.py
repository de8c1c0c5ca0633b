"""The published trainings of small, base and large, laid out for TPU slices.

Paper: arXiv 2512.18099, section 4 for the training, table 12 for the sizes. What the paper fixes is
here once; the files of `configs/` name the sizes and the memory that each slice leaves.
"""

import dataclasses
from collections.abc import Mapping

from sam_audio_jax.data.config import BatchConfig, DataConfig, MixConfig, PromptConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.train.config import AlignmentConfig, OptimConfig, TrainConfig

TEXT = T5Config(dtype="bfloat16")  # the sizes of `TEXT_CHECKPOINT`
TEXT_CHECKPOINT = "t5-base"  # published; frozen
MIX = MixConfig(seconds=30.0, snr_db=(-15.0, 15.0))
WORKERS = 8  # processes that read and prompt
OPTIM = OptimConfig(peak_lr=1e-4, warmup_steps=5_000, weight_decay=0.1, ema_decay=0.999)
# Ours: lengths from 5 to 30 s; each bound is at most 1.22 times the one before, so that a tenth of
# the frames at most is padding.
SHORTEST_S = 5.0
BUCKETS_S = (6.0, 7.0, 8.5, 10.0, 12.0, 14.5, 17.5, 21.0, 25.0, 30.0)
EVAL_BENCH = "embedded"  # ours; name a folder of your own held-out mixtures by --eval-bench
EVAL_EVERY = 5_000  # ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceLayout:
    """How the chips of one slice share a training: the mesh, and what is computed twice."""

    mesh: MeshConfig
    remat: str = "full"


# 256 chips each; v5p counts two cores a chip.
PRETRAINING_MESHES = {
    "v5e-256": MeshConfig(data=16, fsdp=16),
    "v5p-512": MeshConfig(data=8, fsdp=32),
    "v6e-256": MeshConfig(data=16, fsdp=16),
}
# The published budgets are 128, 160 and 192 clips of 30 s: fewer than the 256 chips, so two chips
# share the heads of a clip.
FINETUNING_LAYOUTS = {
    "v5e-256": SliceLayout(mesh=MeshConfig(data=8, fsdp=16, tensor=2), remat="dots"),
    "v5p-512": SliceLayout(mesh=MeshConfig(data=4, fsdp=32, tensor=2), remat="none"),
    "v6e-256": SliceLayout(mesh=MeshConfig(data=8, fsdp=16, tensor=2), remat="dots"),
}


def paper(dit: DitConfig, *, token_budget: int, remat: Mapping[str, str]) -> dict[str, TrainConfig]:
    """The recipes of one published size: `SLICE` pre-trains, `finetune-SLICE` fine-tunes.

    `few-steps-SLICE` fine-tunes what came out for few steps of the solver.

    `token_budget` is the size of a fine-tuning batch in frames; `remat` says, for each slice, what
    of the pre-training's activations is computed again instead of kept.
    """
    layouts = {
        name: SliceLayout(mesh=mesh, remat=remat[name]) for name, mesh in PRETRAINING_MESHES.items()
    }
    tuned = finetuning(dit, token_budget=token_budget)
    recipes = on_slices(pretraining(dit), layouts)
    for kind, config in (("finetune", tuned), ("few-steps", few_steps(tuned))):
        on_each = on_slices(config, FINETUNING_LAYOUTS)
        recipes |= {f"{kind}-{name}": laid for name, laid in on_each.items()}
    return recipes


def pretraining(dit: DitConfig) -> TrainConfig:
    """1024 mixtures of 30 s from a cache of latents and of the teacher's features.

    Prompts are dropped, each on its own.
    """
    data = DataConfig(
        mix=MIX,
        prompts=PromptConfig(
            tokenizer=TEXT_CHECKPOINT, text_dropout=0.3, drop_any_text=True, span_share=0.7
        ),
        cache="caches/pretraining",
        workers=WORKERS,
    )
    return TrainConfig(
        text=TEXT,
        text_checkpoint=TEXT_CHECKPOINT,
        separator=SeparatorConfig(dit=dit),
        data=data,
        alignment=AlignmentConfig(weight=1.0),
        optim=OPTIM,
        eval_bench=EVAL_BENCH,
        eval_every=EVAL_EVERY,
        batch=1024,
        steps=500_000,
    )


def finetuning(dit: DitConfig, *, token_budget: int) -> TrainConfig:
    """Mixtures of varying length under a budget of frames; no prompt is dropped, as published.

    So every example has its text and the spans of its target: without a text the fine-tuned model
    has what pre-training gave it, and for prompts of text alone it wants predicted spans. To
    fine-tune for text alone, hide spans: `--data.prompts.span-share 0.5`. Give `--init-from` the
    workdir of the pre-training, and `--codec-checkpoint` its codec.
    """
    data = DataConfig(
        mix=MIX,
        prompts=PromptConfig(tokenizer=TEXT_CHECKPOINT, text_dropout=0.0, span_share=1.0),
        batches=BatchConfig(token_budget=token_budget, buckets_s=BUCKETS_S, shortest_s=SHORTEST_S),
        cache="caches/finetuning",
        workers=WORKERS,
    )
    return TrainConfig(
        text=TEXT,
        text_checkpoint=TEXT_CHECKPOINT,
        separator=SeparatorConfig(dit=dit),
        data=data,
        optim=OPTIM,
        eval_bench=EVAL_BENCH,
        eval_every=EVAL_EVERY,
        batch=0,
        steps=300_000,
    )


def few_steps(config: TrainConfig, *, steps: int = 50_000) -> TrainConfig:
    """A fine-tuning of its result for few steps of the solver; all of it is ours.

    Give `--init-from` the workdir of the config's own training (docs/training.md, "Few steps").
    """
    dit = dataclasses.replace(config.separator.dit, step_size=True)
    return dataclasses.replace(
        config,
        separator=dataclasses.replace(config.separator, dit=dit),
        flow=dataclasses.replace(config.flow, consistency_share=0.25),
        optim=dataclasses.replace(config.optim, peak_lr=config.optim.peak_lr / 10),
        sampler=SamplerConfig(method="euler", steps=4),
        steps=steps,
    )


def on_slices(config: TrainConfig, layouts: Mapping[str, SliceLayout]) -> dict[str, TrainConfig]:
    """The config on each slice, by the slice's name."""
    return {name: _on_slice(config, layout) for name, layout in layouts.items()}


def _on_slice(config: TrainConfig, layout: SliceLayout) -> TrainConfig:
    """The config with the mesh and rematerialisation of one slice; rows fill its batch shards."""
    dit = dataclasses.replace(config.separator.dit, remat=layout.remat)
    data = config.data
    if data.batches.token_budget:
        shares = layout.mesh.data * layout.mesh.fsdp
        batches = dataclasses.replace(data.batches, row_multiple=shares)
        data = dataclasses.replace(data, batches=batches)
    return dataclasses.replace(
        config,
        separator=dataclasses.replace(config.separator, dit=dit),
        data=data,
        mesh=layout.mesh,
    )
