"""The recipes of the paper as a user runs them, at a toy size: prepare, pre-train, fine-tune."""

import pathlib
import runpy

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import config
from sam_audio_jax.cli import prepare, train
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.data.length_buckets import Schedule
from sam_audio_jax.files import read_jsonl, write_jsonl
from sam_audio_jax.workdir import Workdir
from tests.eval.listing import make_folder, three_lines

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
TOY = str(HERE / "toy_recipes.py")
SIZES = ("small", "base", "large")


def with_video_features(manifest: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """The manifest with features of a video for every second recording."""
    rng, lines = np.random.default_rng(0), list(read_jsonl(manifest))
    for number, line in enumerate(lines):
        line["path"] = str(manifest.parent / line["path"])
        if number % 2:
            np.save(path.parent / f"{number}.npy", rng.normal(size=(10, 4)).astype(np.float16))
            line["video_features"] = f"{number}.npy"
    write_jsonl(path, lines)
    return path


@pytest.fixture(scope="module")
def workdirs(manifest, tmp_path_factory):
    """Workdirs of a pre-training and of a fine-tuning that starts from it."""
    folder = tmp_path_factory.mktemp("recipes")
    make_folder(folder / "bench", three_lines())
    seen = with_video_features(manifest, folder / "seen.jsonl")
    cache, data = folder / "cache", ["--data.source.manifests", str(seen)]
    assert not prepare.main([f"{TOY}@pretraining", "--out", str(cache), "--items", "64", *data])
    more = ["--data.cache", str(cache), "--eval-bench", str(folder / "bench"), *data]
    more += ["--eval-limit", "2"]
    for recipe, start in (
        ("pretraining", []),
        ("finetuning", ["--init-from", str(folder / "pretraining")]),
    ):
        argv = [f"{TOY}@{recipe}", "--workdir", str(folder / recipe), *start, *more]
        assert not train.main(argv)
    return folder


@pytest.mark.parametrize("recipe", ["pretraining", "finetuning"])
def test_a_recipe_writes_the_metrics_of_a_long_run(workdirs, recipe):
    lines = Workdir(workdirs / recipe).read_metrics()
    scores = [line for line in lines if line["group"] == "eval"]
    assert [line["step"] for line in scores] == [2, 4]
    for line in scores:
        assert line["sisdri/none/sfx/text"] == line["sisdri/none/sfx/text"]
        for weights in ("live", "averaged"):
            for domain in ("sfx", "speech", "all"):
                assert line[f"flow_loss/{weights}/{domain}"] > 0
    steps = [line for line in lines if line["group"] == "train"]
    assert all(0 <= line["padding"] < 0.5 for line in steps)
    assert steps[-1]["grad_norm_video"] > 0


def test_the_run_keeps_its_frozen_text_encoder_and_reads_videos(workdirs):
    shipped = nnx.as_pure(nnx.state(load_networks("tiny")[1].text_encoder))
    for recipe in ("pretraining", "finetuning"):
        _, prompted, _, _ = load_networks(str(workdirs / recipe))
        ours = nnx.as_pure(nnx.state(prompted.text_encoder))
        jax.tree.map(np.testing.assert_array_equal, ours, shipped)
        assert prompted.separator.reads_video


@pytest.mark.long  # 10 s: three more starts; without videos test_token_budget.py has it
def test_a_run_with_videos_goes_on_bit_for_bit(workdirs):
    """The last weights of the fine-tuning are those of one that was stopped and continued."""
    cfg = Workdir(workdirs / "finetuning").read_config()["config"]
    flags = ["--data.cache", cfg["data"]["cache"], "--init-from", cfg["init_from"]]
    flags += ["--data.source.manifests", *cfg["data"]["source"]["manifests"], "--eval-bench", ""]
    for steps in ("3", "4"):
        argv = [f"{TOY}@finetuning", "--workdir", str(workdirs / "parts"), "--steps", steps]
        assert not train.main([*argv, *flags])
    whole, parts = (
        nnx.as_pure(nnx.state(load_networks(str(workdirs / name))[1]))
        for name in ("finetuning", "parts")
    )
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


@pytest.mark.parametrize("size", SIZES)
def test_every_recipe_names_its_frozen_networks_and_evaluates(size):
    defined = runpy.run_path(str(ROOT / "configs" / f"{size}.py"))["RECIPES"]
    assert len(defined) == 9
    for name, recipe in defined.items():
        assert recipe.text_checkpoint == "t5-base"
        assert recipe.eval_bench
        assert 0 < recipe.eval_every < recipe.steps
        prompts = recipe.data.prompts
        few = "few-steps" in name
        assert (recipe.sampler.method == "euler") == few
        assert (recipe.separator.dit.step_size, recipe.flow.consistency_share > 0) == (few, few)
        if few or "finetune" in name:
            assert (prompts.text_dropout, prompts.span_share) == (0.0, 1.0)
            schedule = Schedule(recipe.data.batches, 0, recipe.codec.frame_rate)
            assert schedule.padding < 0.1


def test_the_codec_has_a_recipe_of_full_size():
    for slice_ in ("v5e-8", "v5p-16", "v6e-8"):
        cfg = config.from_cli([f"codec@{slice_}"])
        assert (cfg.codec.sample_rate, cfg.codec.frame_rate, cfg.codec.codebook_dim) == (
            48_000,
            25.0,
            128,
        )
        assert (cfg.batch, cfg.steps, cfg.loss.needs_discriminator) == (72, 400_000, True)
        assert cfg.eval_every
        assert not cfg.batch % (cfg.mesh.data * cfg.mesh.fsdp)
