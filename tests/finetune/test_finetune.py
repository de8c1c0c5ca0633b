"""The command from a folder of sounds to an adapter or a model, with the smallest networks."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import config
from sam_audio_jax.audio import USUAL_DB
from sam_audio_jax.cli import finetune, separate
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.adapter import digest, make_adapter, open_adapter, save_adapter
from sam_audio_jax.convert.folder import save_folder, with_known_texts
from sam_audio_jax.convert.load import describe_model, load_networks
from sam_audio_jax.data.config import BatchConfig, PromptConfig
from sam_audio_jax.data.pipeline import separation_batches
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.encoders.tokenizer_name import tokenizer_folder
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import settings_of
from sam_audio_jax.eval.in_training import check_evaluation
from sam_audio_jax.files import read_jsonl, write_json
from sam_audio_jax.finetune import before_after, outcome
from sam_audio_jax.finetune.before_after import evaluate, model_before
from sam_audio_jax.finetune.finetune_folder import FinetuneFolder
from sam_audio_jax.finetune.gains import measured_gains
from sam_audio_jax.finetune.own_recordings import look
from sam_audio_jax.finetune.split_sources import split
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.nn.lora import add_adapters, split_factors
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.workdir import Workdir, run_of
from tests import audio_text
from tests.children import environment
from tests.tiny import filled

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs" / "finetuning.md"
TINY = runpy.run_path(str(ROOT / "tests" / "train" / "tiny.py"))["CONFIG"]
TIMEOUT_S = 300
FLAGS = [
    *("--data.mix.seconds", "1.0", "--batch", "8", "--log-every", "1"),
    *("--checkpoint.every-steps", "1", "--eval-limit", "2"),
]


REFINE = {"exponent": 0.45, "gate": True}


def write_base(folder, seed=0):
    """A model folder with the smallest networks, and a refinement of its own."""
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    text = dataclasses.replace(TINY.text, depth=0)  # word vectors, which say what is known
    start = filled(lambda: PromptedSeparator(text, TINY.separator, rngs=Rngs(0)), seed)
    extra = {"sampler": {"method": "euler", "steps": 1}, "level_db": -25.0, "refine": REFINE}
    extra |= {"known": {"texts": ["violin"], "least_cosine": 0.9999}}
    save_folder(folder, codec, start, "byt5", extra)
    return str(folder)


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


def share_of_factors(network, lora):
    """How docs/finetuning.md writes the factors of adapters and their share of the network."""
    factors = 0
    for path, layer in nnx.iter_modules(network):
        if isinstance(layer, nnx.Linear) and re.fullmatch(lora.layers, ".".join(map(str, path))):
            *stack, size_in, size_out = layer.kernel.get_value().shape
            factors += math.prod(stack) * lora.rank * (size_in + size_out)
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network)))
    return f"{factors / 1e6:.2f} M, {100 * factors / size:.1f} %"


def raised(error):
    raise error


@pytest.fixture
def sounds(write):
    for number in range(3):
        write(f"dog/{number}.wav", number)
        write(f"rain/{number}.wav", 10 + number)
    return str(write("rain/2.wav", 12))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_training_is_laid_out_as_a_config_that_the_trainer_takes(rank, sounds, tmp_path):
    lora = ["--lora", str(rank)] if rank else []
    out = tmp_path / "out"
    options, flags = finetune.read_options(
        [sounds, "--from", "tiny", "--workdir", str(out), *lora, "--steps", "7", "--batch", "4"]
    )
    folder, model = FinetuneFolder(out), describe_model("tiny")
    own = finetune.look_at(options, folder)
    cfg = finetune.lay_out(options, flags, folder, own, "tiny", model)
    assert (cfg.steps, cfg.batch, cfg.lora.rank) == (7, 4, rank)
    assert cfg.init_from == cfg.codec_checkpoint == "tiny"
    assert cfg.data.cache == str(out / "latents")  # on a CPU
    assert cfg.separator.dit.width == 192
    if rank:
        assert f"| rank 4 | {share_of_factors(model.prompted, cfg.lora)} |" in DOCS.read_text()
    assert not cfg.train_text
    assert config.from_cli([str(folder.train_file)], TrainConfig) == cfg
    codec = model.codec.config
    examples = separation_batches(
        dataclasses.replace(cfg.data, cache=""), codec.sample_rate, codec.hop, 2
    ).items
    assert examples[0]["mixture"].shape == (8 * codec.sample_rate,)
    assert check_evaluation(cfg) is None
    again = finetune.lay_out(options, flags, folder, own, "tiny", model)
    assert again == cfg


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init-from", "other"], r"--init-from is decided by --from: leave it out"),
        (["--text-checkpoint", "t5-base"], r"--text-checkpoint is decided by --from: leave it out"),
        (["--data.source.manifests", "x"], r"--data\.source\.manifests is decided by SOUNDS"),
        (["--lora.rank", "4"], r"--lora\.rank is decided by --lora"),
        (["--lora", "2", "--lora.rank", "4"], r"--lora\.rank is decided by --lora"),
        (["--lora", "2", "--sampler.steps", "8"], r"--sampler has no effect with --lora"),
    ],
)
def test_flags_that_would_contradict_the_options_are_refused(flags, message, sounds, tmp_path):
    out = tmp_path / "out"
    options, flags = finetune.read_options([sounds, "--workdir", str(out), *flags])
    own = split(look(sounds))
    with pytest.raises(UserError, match=message):
        finetune.lay_out(options, flags, FinetuneFolder(out), own, "tiny", describe_model("tiny"))
    assert not out.exists()


def test_mixtures_of_another_length_are_rendered_again_until_a_training_has_begun(
    base, sounds, tmp_path, monkeypatch
):
    folder, own, model = FinetuneFolder(tmp_path / "out"), split(look(sounds)), describe_model(base)

    def length_with(seconds):
        options, flags = finetune.read_options(
            [sounds, "--workdir", str(folder.path), "--data.mix.seconds", seconds]
        )
        finetune.lay_out(options, flags, folder, own, base, model)
        lines = read_jsonl(folder.bench / "mixtures.jsonl")
        return {line["samples"] / line["sample_rate"] for line in lines}

    assert length_with("2") == {2.0}
    assert length_with("1") == {1.0}
    rate = model.codec.config.sample_rate
    monkeypatch.setattr(Workdir, "steps", lambda self: [5])
    monkeypatch.setattr(Workdir, "config_in_checkpoint", lambda self: run_of(began))
    began = config.from_cli([str(folder.train_file)], TrainConfig)
    with pytest.raises(UserError, match=r"seconds: saved 1\.0, now 2\.0"):
        length_with("2")
    assert config.from_cli([str(folder.train_file)], TrainConfig) == began
    assert {line["samples"] for line in read_jsonl(folder.bench / "mixtures.jsonl")} == {rate}


def test_a_card_says_what_an_update_was_of():
    batches = BatchConfig(token_budget=400, buckets_s=(0.5, 1.0), row_multiple=1)
    assert outcome._batch(TINY) == "8 mixtures of 1 s"
    budget = dataclasses.replace(TINY.data, batches=batches)
    assert outcome._batch(dataclasses.replace(TINY, batch=0, data=budget)) == (
        "16 s in mixtures of at most 1 s"
    )


def test_a_run_keeps_the_shipped_tokenizer_by_name(sounds, tmp_path):
    """Its path would be another one in another installation, where the run could not go on."""
    path = describe_model("tiny").tokenizer
    elsewhere = "/elsewhere/sam_audio_jax/pretrained/tiny/t5"
    for name in (path, elsewhere, "tiny"):
        assert PromptConfig(tokenizer=name).tokenizer == "tiny"
        assert tokenizer_folder(name) == path
        assert (
            tokenizer_for(name)(["a dog"])[0].tolist() == tokenizer_for(path)(["a dog"])[0].tolist()
        )
    for name in ("byt5", "t5-base", str(tmp_path / "t5"), "/pretrained/other/t5"):
        assert PromptConfig(tokenizer=name).tokenizer == tokenizer_folder(name) == name
    prompts = PromptConfig(tokenizer="tiny")
    saved = config.to_dict(prompts) | {"tokenizer": elsewhere}
    assert not config.differences(saved, prompts)


@pytest.mark.long
def test_a_folder_becomes_an_adapter_with_a_report(base, sounds, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [sounds, "--from", base, "--workdir", str(out), "--lora", "1", "--items", "0"]
    assert finetune.main([*arguments, *FLAGS, "--steps", "2"]) == 0
    text = capsys.readouterr().out
    assert "6 recordings" in text
    assert "report: " in text
    gains = json.loads((out / "gains.json").read_text())
    assert {gain["prompt"] for gain in gains} == {"text", "span", "text+span"}
    assert all(np.isfinite(gain["difference"]["mean"]) for gain in gains)
    assert "LoRA of rank 1" in (out / "README.md").read_text()
    assert "<svg" in (out / "report.html").read_text()
    adapter = open_adapter(out)
    assert (adapter.rank, adapter.step, adapter.base) == (1, 2, base)
    assert all(np.asarray(tensor).any() for tensor in adapter.state.values())
    trained = load_networks(str(out / "run"))[1]  # the workdir of adapters is base and adapter
    merged = load_networks(base, adapters=[str(out)])[1]
    weights = (nnx.as_pure(nnx.state(network)) for network in (trained, merged))
    jax.tree.map(np.testing.assert_array_equal, *weights)
    recording = str(next(pathlib.Path(sounds).rglob("*.wav")))
    stems = ["--checkpoint", base, "--adapter", f"{out}:0.5", "--out", str(tmp_path / "stems")]
    assert separate.main([recording, "--text", "dog", *stems]) == 0
    assert (tmp_path / "stems" / "target.wav").is_file()
    other = ["--adapter", str(out), "--out", str(tmp_path / "other")]  # beside the model `tiny`
    assert separate.main([recording, "--text", "dog", *other]) == 2
    assert f"was trained beside {base} (weights " in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("lora", [[], ["--lora", "1"]])
def test_a_training_that_changes_nothing_gains_nothing(lora, base, sounds, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = [sounds, "--from", base, "--workdir", str(out), "--items", "0", *lora, *FLAGS]
    arguments += ["--optim.peak-lr", "1e-12", "--steps", "1"]
    arguments += [] if lora else ["--sampler.steps", "2"]
    with monkeypatch.context() as broken:
        broken.setattr(outcome, "gains_page", lambda *_: raised(OSError("the disk is full")))
        with pytest.raises(OSError, match="the disk is full"):
            finetune.main(arguments)
    assert not {"config.json", "adapter.json", "gains.json"} & set(os.listdir(out))
    evaluations = [out / "evaluations" / name / "results.json" for name in ("before", "1")]
    written = [file.stat().st_mtime_ns for file in evaluations]
    assert finetune.main(arguments) == 0
    assert [file.stat().st_mtime_ns for file in evaluations] == written  # they were kept
    gains = json.loads((out / "gains.json").read_text())
    assert {(gain["refine"], gain["column"]) for gain in gains} >= {
        *itertools.product(("none", "wiener"), ("sisdri", "logmel"))
    }
    assert max(abs(gain["difference"][end]) for gain in gains for end in ("low", "high")) < 1e-3
    before, after = (json.loads(file.read_text())["settings"] for file in evaluations)
    adapters = [str(out)] if lora else []
    delivered = SAMAudio.from_pretrained(base if lora else out, adapters=adapters)
    known = delivered.pipeline.known
    assert known is not None
    assert known.config.texts == ("violin", "dog", "rain")
    assert [known.note(text) is None for text in ("dog", "rain", "chair")] == [True, True, False]
    for settings in (before, after):
        assert settings["refine"] == dataclasses.asdict(delivered.pipeline.refinement)
        assert settings["refine"]["exponent"] == REFINE["exponent"]
        assert settings["steps"] == delivered.sampler.steps == (1 if lora else 2)
        assert settings["level_db"] == delivered.pipeline.level_db == (-25.0 if lora else USUAL_DB)


def test_results_of_other_weights_or_settings_are_measured_again(
    base, sounds, tmp_path, monkeypatch
):
    out, other = tmp_path / "out", write_base(tmp_path / "other", seed=1)
    options, flags = finetune.read_options(
        [sounds, "--from", base, "--workdir", str(out), "--items", "0", *FLAGS]
    )
    folder = FinetuneFolder(out)
    own = finetune.look_at(options, folder)
    cfg = finetune.lay_out(options, flags, folder, own, base, describe_model(base))
    limited = dataclasses.replace(cfg, eval_limit=1)
    in_steps = dataclasses.replace(cfg, sampler=SamplerConfig(method="euler", steps=2))
    results = folder.evaluation("before") / "results.json"

    def measure(model, suite, out):
        """Without a separation; that real results have these settings is tested above."""
        assert out == results.parent
        measured.append(model)
        write_json(results, {"settings": settings_of(model, suite)})

    measured = []
    monkeypatch.setattr(before_after, "evaluate_model", measure)

    def measured_again(base, cfg):
        count = len(measured)
        evaluate(model_before(base, cfg), cfg, folder, "before")
        return len(measured) > count

    for name, changed in ((base, cfg), (other, cfg), (base, limited), (base, in_steps)):
        assert measured_again(name, changed)
        assert not measured_again(name, changed)
    results.write_text("{")  # damaged
    assert measured_again(base, cfg)


def test_an_adapter_brings_the_texts_that_it_has_learned(base, tmp_path):
    network = load_networks(base)[1]
    add_adapters(network, r".*mlp\.up", rank=1, scale=1.0, rngs=Rngs(0))
    factors, _ = split_factors(nnx.as_pure(nnx.state(network)))
    weights = digest(load_networks(base)[1])
    fields = {"base": base, "weights": weights, "rank": 1, "alpha": 1.0, "step": 1}
    adapter = make_adapter("made", factors, **fields, texts=("dog", "violin"))
    save_adapter(tmp_path / "new", adapter)
    save_adapter(tmp_path / "old", adapter)
    file = tmp_path / "old" / "adapter.json"
    stored = json.loads(file.read_text())
    assert stored.pop("texts") == ["dog", "violin"]
    write_json(file, stored)
    for name, texts in (("new", ["violin", "dog"]), ("old", ["violin"])):
        extra = load_networks(base, adapters=[str(tmp_path / name)])[3]
        assert extra["known"] == {"texts": texts, "least_cosine": 0.9999}
    write_json(file, stored | {"texts": "dog"})
    with pytest.raises(UserError, match=r"texts must be a list of texts, not 'dog'"):
        open_adapter(tmp_path / "old")
    assert with_known_texts({"level_db": None}, ["dog"]) == {"level_db": None}


@pytest.mark.parametrize("flags", [[], ["--train-text"]])
def test_word_vectors_that_were_trained_leave_their_audio_tower_behind(
    flags, sounds, tmp_path, monkeypatch, capsys
):
    base, folder = tmp_path / "base", FinetuneFolder(tmp_path / "out")
    audio_text.write_model(base, audio_text.stored_tower())
    options = finetune.read_options([sounds, "--workdir", str(folder.path), *flags])
    own, model = split(look(sounds)), describe_model(str(base))
    cfg = finetune.lay_out(*options, folder, own, str(base), model)
    assert ("cannot be prompted by an example" in capsys.readouterr().err) == bool(flags)
    trained = (*load_networks(str(base))[:3], {"trained": {"step": 1}})
    monkeypatch.setattr(outcome, "load_networks", lambda _: trained)
    outcome._write_weights(tmp_path / "result", folder, own, str(base), model, cfg)
    assert describe_model(str(tmp_path / "result")).audio_tower == (
        0 if flags else model.audio_tower
    )


def test_evaluations_that_differ_in_more_than_weights_are_not_compared(tmp_path):
    settings = {"method": "euler", "steps": 1, "grid": "uniform", "refine": REFINE, "level_db": -25}
    for name, own in (("before", settings), ("after", settings | {"refine": {"exponent": 1.2}})):
        write_json(tmp_path / name / "results.json", {"items": [], "settings": own})
    assert measured_gains(tmp_path / "before", tmp_path / "before") == []
    with pytest.raises(UserError, match=r"before and .*after differ in refine \(.*0\.45.*1\.2"):
        measured_gains(tmp_path / "before", tmp_path / "after")


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("lora", [[], ["--lora", "1"]])
def test_a_killed_one_goes_on_to_the_same_bytes(lora, base, sounds, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def command(out):
        options = [sounds, "--from", base, "--workdir", str(out), "--items", "64", *lora]
        return [sys.executable, "-m", "sam_audio_jax.cli", "finetune", *options, *FLAGS]

    variables = environment(SAM_AUDIO_CACHE=str(tmp_path / "waves"))

    def run(out, steps):
        arguments = [*command(out), "--steps", str(steps)]
        return subprocess.Popen(arguments, cwd=ROOT, env=variables, stderr=subprocess.DEVNULL)

    assert run(whole, 12).wait(TIMEOUT_S) == 0
    process = run(killed, 12)
    end = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        if len(list((killed / "run" / "checkpoints").glob("[0-9]*"))) > 1:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert not (killed / "config.json").exists()  # no half of a result
    assert run(killed, 12).wait(TIMEOUT_S) == 0
    names = ["adapter.safetensors"] if lora else ["checkpoint.safetensors", "t5/model.safetensors"]
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
