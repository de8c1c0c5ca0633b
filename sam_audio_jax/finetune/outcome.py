"""What comes out of a fine-tuning: the model or the adapter, a report and a model card."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from sam_audio_jax.convert.adapter import open_adapter, save_adapter
from sam_audio_jax.convert.folder import save_folder, with_known_texts
from sam_audio_jax.convert.load import Described, load_extras, load_networks
from sam_audio_jax.data.text import UNNAMED, texts_of
from sam_audio_jax.files import write_json
from sam_audio_jax.finetune.before_after import evaluate, model_after
from sam_audio_jax.finetune.finetune_folder import FinetuneFolder
from sam_audio_jax.finetune.gains import Gain, gain_lines, gains_page, measured_gains
from sam_audio_jax.finetune.own_recordings import OwnRecordings
from sam_audio_jax.finetune.split_sources import HELD_OUT, TRAIN, part_of
from sam_audio_jax.train.config import TrainConfig


def write_outcome(
    folder: FinetuneFolder,
    own: OwnRecordings,
    name: str,
    model: Described,
    cfg: TrainConfig,
    step: int,
) -> list[str]:
    """Writes the model or adapter of the run's last step, report and card; returns main lines.

    It is evaluated as it will be delivered, and moved to its place when all of it is there.
    """
    title = f"{folder.path.resolve().name}: {pathlib.Path(name).name}, fine-tuned"
    with folder.result() as part:
        facts = {
            "started from": name,
            "trained": _write_weights(part, folder, own, name, model, cfg),
            "updates": f"{step} of {_batch(cfg)}, rate {cfg.optim.peak_lr:.2g}",
            "recordings": _described(own, TRAIN),
            "held out": _described(own, HELD_OUT),
            "prompts": ", ".join(own.by_caption()),
        }
        evaluate(model_after(name, cfg, part), cfg, folder, str(step))
        gains = measured_gains(folder.evaluation("before"), folder.evaluation(str(step)))
        page = gains_page(title, facts, gains, folder.workdir.read_metrics())
        (part / "report.html").write_text(page, encoding="utf-8")
        write_json(part / "gains.json", [gain.as_dict() for gain in gains])
        (part / "README.md").write_text(_card(title, facts, gains, cfg), encoding="utf-8")
    return gain_lines(gains)


def _write_weights(
    part: pathlib.Path,
    folder: FinetuneFolder,
    own: OwnRecordings,
    base: str,
    model: Described,
    cfg: TrainConfig,
) -> str:
    """Writes the adapter, or the model with what else the folder of its base holds, as a tower.

    Returns how much of it was trained, in words.
    """
    run, texts = str(folder.workdir.path), _learned_texts(own)
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.prompted)))
    if cfg.lora.rank:
        adapter = dataclasses.replace(open_adapter(run), texts=texts)
        save_adapter(part, adapter)
        trained = sum(math.prod(tensor.shape) for tensor in adapter.state.values())
        lora = f", LoRA of rank {cfg.lora.rank}, alpha {cfg.lora.alpha:g}"
    else:
        codec, prompted, tokenizer, extra = load_networks(run)
        extra = with_known_texts(load_extras(base) | extra, texts)
        if cfg.train_text:  # the audio tower is one among the word vectors that were trained away
            extra.pop("audio_tower", None)
        save_folder(part, codec, prompted, tokenizer, extra)
        text = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.prompted.text_encoder)))
        trained, lora = size if cfg.train_text else size - text, ""
    return f"{trained:,} of {size:,} parameters ({trained / size:.1%}){lora}"


def _learned_texts(own: OwnRecordings) -> tuple[str, ...]:
    """Every text by which a recording of the training was a target."""
    recordings = [sound.recording for sound in part_of(own, TRAIN)]
    named = [recording for recording in recordings if recording.stem != UNNAMED]
    return tuple(sorted({text for recording in named for text in texts_of(recording) if text}))


def _batch(cfg: TrainConfig) -> str:
    """What an update is of, in words."""
    batches = cfg.data.batches
    if not batches.token_budget:
        return f"{cfg.batch} mixtures of {cfg.data.mix.seconds:g} s"
    seconds = batches.token_budget / cfg.codec.frame_rate
    return f"{seconds:g} s in mixtures of at most {batches.buckets_s[-1]:g} s"


def _described(own: OwnRecordings, name: str) -> str:
    sounds = part_of(own, name)
    minutes = sum(sound.seconds for sound in sounds) / 60
    return f"{len(sounds)} of {own.path.resolve().name}, {minutes:.1f} min"


def _card(title: str, facts: Mapping[str, Any], gains: Sequence[Gain], cfg: TrainConfig) -> str:
    use = "--adapter DIR" if cfg.lora.rank else "--checkpoint DIR"
    if cfg.lora.rank:
        use = f"--checkpoint {cfg.init_from} {use}"
    rows = [f"| {key} | {value} |" for key, value in facts.items()]
    table = ["| | |", "|---|---|", *rows, "| licence | that of the model and of the recordings |"]
    scores = "\n".join(["```", *gain_lines(gains), "```"])
    return (
        f"# {title}\n\nMade by `sam-audio finetune`; `sam-audio separate RECORDING --text PROMPT "
        f"{use} --out OUT` uses it.\n\n" + "\n".join(table) + f"\n\n{scores}\n\n"
        "The mixtures are of held-out recordings of the same folder: the numbers say nothing about "
        "other material. `report.html` has them by prompt, `data.html` what was found.\n"
    )
