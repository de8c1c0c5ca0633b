"""What comes out of a fine-tuning: the model or the adapter, a report and a model card."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from sam_audio_jax.convert.adapter import open_adapter, save_adapter
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.load import Described, load_extras, load_networks
from sam_audio_jax.files import whole_file, write_json
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
    """Writes the model or adapter of the run's last step, report and card; returns main lines."""
    run = str(folder.workdir.path)
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.prompted)))
    if cfg.lora.rank:
        adapter = open_adapter(run)
        trained = sum(math.prod(tensor.shape) for tensor in adapter.state.values())
        folder.write_result(lambda part: save_adapter(part, adapter))
    else:
        text = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.prompted.text_encoder)))
        trained = size if cfg.train_text else size - text
        folder.write_result(lambda part: _write_model(part, name, run))
    gains = measured_gains(folder.evaluation("before"), folder.evaluation(str(step)))
    facts = {
        "started from": name,
        "trained": f"{trained:,} of {size:,} parameters ({trained / size:.1%})"
        + (f", LoRA of rank {cfg.lora.rank}, alpha {cfg.lora.alpha:g}" if cfg.lora.rank else ""),
        "updates": f"{step} of {cfg.batch} mixtures of {cfg.data.mix.seconds:g} s, rate "
        f"{cfg.optim.peak_lr:.2g}",
        "recordings": _described(own, TRAIN),
        "held out": _described(own, HELD_OUT),
        "prompts": ", ".join(own.by_caption()),
    }
    title = f"{folder.path.resolve().name}: {pathlib.Path(name).name}, fine-tuned"
    page = gains_page(title, facts, gains, folder.workdir.read_metrics())
    with whole_file(folder.path / "report.html") as part:
        part.write_text(page, encoding="utf-8")
    write_json(folder.path / "gains.json", [gain.as_dict() for gain in gains])
    with whole_file(folder.path / "README.md") as part:
        part.write_text(_card(title, facts, gains, cfg), encoding="utf-8")
    return gain_lines(gains)


def _write_model(part: pathlib.Path, base: str, run: str) -> None:
    """The run's networks, with what else the folder of its base holds, as a vision tower."""
    codec, prompted, tokenizer, extra = load_networks(run)
    save_folder(part, codec, prompted, tokenizer, load_extras(base) | extra)


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
