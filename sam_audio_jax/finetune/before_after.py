"""The held-out mixtures separated by the model before the training, and by what came out of it.

Both separate in the way of what is delivered, so that only the weights differ: an adapter is loaded
on top of its base, whose solver, refinement and level stay; a model has the refinement of its base
and the solver of its training.
"""

import json
import pathlib

from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.convert.training_run import separation_settings
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import evaluate_model, settings_of
from sam_audio_jax.eval.suite import fixed_suite
from sam_audio_jax.files import read_object
from sam_audio_jax.finetune.finetune_folder import FinetuneFolder
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.train.config import TrainConfig


def model_before(base: str, cfg: TrainConfig) -> SAMAudio:
    """The model that a training starts from, as what comes out of the training separates."""
    codec, prompted, tokenizer, extra = load_networks(base)
    if not cfg.lora.rank:
        extra = extra | separation_settings(to_dict(cfg))
    return SAMAudio.from_networks(codec, prompted, tokenizer, extra)


def model_after(base: str, cfg: TrainConfig, result: pathlib.Path) -> SAMAudio:
    """The model in a folder, or the base with the adapter in it."""
    if cfg.lora.rank:
        return SAMAudio.from_pretrained(base, adapters=[str(result)])
    return SAMAudio.from_pretrained(str(result))


def evaluate(model: SAMAudio, cfg: TrainConfig, folder: FinetuneFolder, which: str) -> None:
    """Separates the held-out mixtures, unless these weights did so before in the same way."""
    suite = fixed_suite(folder.bench, model.sample_rate, limit=cfg.eval_limit or None)
    out = folder.evaluation(which)
    if not _is_measured(out / "results.json", json.loads(json.dumps(settings_of(model, suite)))):
        evaluate_model(model, suite, out)


def _is_measured(results: pathlib.Path, settings: dict) -> bool:
    """Whether there are results of an evaluation with these settings; damaged ones are none."""
    try:
        return results.is_file() and read_object(results).get("settings") == settings
    except UserError:
        return False
