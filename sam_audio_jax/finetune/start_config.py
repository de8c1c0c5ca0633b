"""The config of a fine-tuning, from the model that it starts from; every field may be overridden.

Published for the fine-tuning of the released sizes are AdamW, a constant rate after a warm-up, its
average of weights and that no alignment is learned (docs/training.md, "Schedule"); the numbers here
are ours, for hours of own recordings instead of the paper's corpus.
"""

import dataclasses
import pathlib

import jax
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.load import Described
from sam_audio_jax.data.config import DataConfig, MixConfig, PromptConfig, SourceConfig
from sam_audio_jax.finetune.own_recordings import OwnRecordings
from sam_audio_jax.finetune.split_sources import TRAIN, loose, part_of
from sam_audio_jax.separator.flow import FlowConfig, SamplerConfig
from sam_audio_jax.train.config import CheckpointConfig, LoraConfig, OptimConfig, TrainConfig

SECONDS = 8.0  # of a mixture
BATCH = 8
STEPS = 1_000
RATE, RATE_WIDTH = 3e-5, 1536  # the rate falls with the width: docs/scaling.md, "Parametrisations"
LORA_RATE = 10.0  # times the rate of a full training
LARGE = 100e6  # parameters from which the activations of blocks are computed again
MOST_UNROLLED = 8  # blocks that a CPU runs without a scan
# A model that is solved in one step meets hardly any flow time but the first ones.
ONE_STEP = FlowConfig(time="logit_normal", time_mean=-4.0, time_std=1.2)


def start_config(
    name: str, model: Described, own: OwnRecordings, folder: pathlib.Path, rank: int
) -> TrainConfig:
    """The config that trains the model `name` on the recordings in `folder`, with LoRA by a rank.

    `folder` has `data/manifest.jsonl` and the bench `bench`; all paths are absolute.
    """
    folder = folder.absolute()
    on_cpu = parallel.platform() == "cpu"
    sizes = model.prompted.separator.config
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.prompted)))
    dit = dataclasses.replace(
        sizes.dit,
        dtype="float32" if on_cpu else "bfloat16",
        remat="full" if parameters > LARGE else "none",
        unroll=sizes.dit.depth if on_cpu and sizes.dit.depth <= MOST_UNROLLED else 1,
    )
    text = dataclasses.replace(
        model.prompted.text_encoder.config, dtype="float32" if on_cpu else "bfloat16"
    )
    rate = RATE * RATE_WIDTH / dit.width * (LORA_RATE if rank else 1.0)
    sampler = from_dict(SamplerConfig, model.sampler, where="sampler.")
    devices = parallel.batch_axis_size(parallel.make_mesh(parallel.MeshConfig()))
    return TrainConfig(
        codec=model.codec.config,
        text=text,
        separator=dataclasses.replace(sizes, dit=dit),
        flow=ONE_STEP if sampler.steps == 1 else FlowConfig(),
        lora=LoraConfig(rank=rank),
        data=DataConfig(
            source=SourceConfig(manifests=(str(folder / "data" / "manifest.jsonl"),)),
            mix=MixConfig(seconds=SECONDS, recipes=recipes(own), random_start=True),
            prompts=PromptConfig(tokenizer=model.tokenizer, text_dropout=0.1, span_share=0.5),
        ),
        optim=OptimConfig(peak_lr=min(rate, 3e-3), warmup_steps=50),
        checkpoint=CheckpointConfig(every_steps=200, every_minutes=5.0, keep_last=2),
        codec_checkpoint=name,
        init_from=name,
        sampler=sampler,
        batch=devices * -(-BATCH // devices),
        steps=STEPS,
        eval_bench=str(folder / "bench"),
        eval_every=STEPS // 5,
        eval_scores="none",  # what comes out is scored in the end, beside the model that it was
        log_every=10,
    )


def recipes(own: OwnRecordings) -> tuple[tuple[str, str, float], ...]:
    """How own recordings are mixed, each kind by its share of them: classes with one another,
    stems with the rest of their song."""
    sounds = part_of(own, TRAIN)
    alone = sum(map(len, loose(sounds).values()))
    found = []
    if len(loose(sounds)) > 1:
        found.append(("any", "any", alone / len(sounds)))
    if alone < len(sounds):
        found.append(("stem", "rest", 1.0 - alone / len(sounds)))
    return tuple(found)
