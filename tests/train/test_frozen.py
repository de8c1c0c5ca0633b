"""Weights of the networks that do not learn: named and of the right sizes, or an error."""

import dataclasses
import pathlib
import re
import runpy

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.cli import train
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.load import load_codec, load_networks
from sam_audio_jax.convert.model_files import SHIPPED
from sam_audio_jax.data import pipeline
from sam_audio_jax.encoders.audio_tower import latents_probe
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_json
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train.config import CodecTrainConfig, LoraConfig
from sam_audio_jax.train.frozen import RANDOM, cache_notes, check_latents, load_start, make_codec
from sam_audio_jax.train.objective import make_separator_training
from sam_audio_jax.workdir import METADATA, Workdir, run_of
from tests.tiny import filled

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
FROZEN = dataclasses.replace(TINY, train_text=False)
SHIPPED_TEXT = T5Config(vocab_size=32_000, width=256, head_dim=1, heads=1, mlp=1, depth=0)

TOKENIZER = str(SHIPPED / "tiny" / "t5")
OWN_TOKENS = re.escape(TOKENIZER)


def with_shipped_text(**fields):
    separator = dataclasses.replace(TINY.separator, text_width=SHIPPED_TEXT.width)
    prompts = dataclasses.replace(TINY.data.prompts, tokenizer=TOKENIZER)
    data = dataclasses.replace(TINY.data, prompts=prompts)
    own = {"text": SHIPPED_TEXT, "separator": separator, "data": data}
    return dataclasses.replace(FROZEN, **own | fields)


def weights(module):
    return nnx.as_pure(nnx.state(module))


def test_a_frozen_text_encoder_without_weights_is_the_users_error():
    with pytest.raises(UserError, match="text_checkpoint is empty: name the weights of the frozen"):
        load_start(FROZEN)
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    with pytest.raises(UserError, match="no weights of it are given"):
        make_separator_training(FROZEN, codec, mesh)
    assert load_start(TINY) is None  # it learns
    assert load_start(dataclasses.replace(FROZEN, text_checkpoint=RANDOM)) is None


@pytest.mark.parametrize("name", ["tiny", str(SHIPPED / "tiny" / "t5")])
def test_the_text_encoder_of_a_model_or_alone_is_where_a_run_starts(name):
    config = with_shipped_text(text_checkpoint=name)
    encoder = load_start(config)
    assert isinstance(encoder, T5Encoder)
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    state, _, _ = make_separator_training(config, codec, mesh, encoder)
    shipped = weights(load_networks("tiny")[1].text_encoder)
    for tree in (state.params, state.ema):
        jax.tree.map(np.testing.assert_array_equal, tree["text_encoder"], shipped)


def test_weights_of_other_sizes_or_for_another_tokenizer_are_the_users_error(tmp_path):
    with pytest.raises(
        UserError,
        match="text_checkpoint=tiny has vocab_size 32000 instead of 384; width 256 instead of 8; ",
    ):
        load_start(dataclasses.replace(FROZEN, text_checkpoint="tiny"))
    with pytest.raises(UserError, match="no model folder"):
        load_start(dataclasses.replace(FROZEN, text_checkpoint=str(tmp_path / "gone")))
    words = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("\n".join([*words, "[CLS]", "[SEP]", "[MASK]"]))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    prompts = dataclasses.replace(TINY.data.prompts, tokenizer=str(tmp_path))
    data = dataclasses.replace(TINY.data, prompts=prompts)
    for named in ({"text_checkpoint": "tiny"}, {"init_from": "tiny"}):
        with pytest.raises(
            UserError, match=f"gives other tokens than {OWN_TOKENS}, the tokenizer that"
        ):
            load_start(with_shipped_text(data=data, **named))


def test_a_codec_without_a_name_is_the_users_error():
    with pytest.raises(UserError, match="codec_checkpoint is empty: name a trained codec"):
        make_codec(dataclasses.replace(TINY, codec_checkpoint=""))
    assert make_codec(TINY).config == TINY.codec


def test_a_codec_whose_latents_have_no_scale_yet_is_the_users_error(tmp_path):
    """With the first evaluation of its training it would have other latents."""
    workdir = Workdir(tmp_path / "codec")
    write_json(workdir.config_file, run_of(CodecTrainConfig(codec=TINY.codec)))
    write_json(workdir.checkpoint(3) / METADATA, {})
    config = dataclasses.replace(TINY, codec_checkpoint=str(workdir.path))
    with pytest.raises(UserError, match=r"with --steps 3 it ends at once"):
        make_codec(config)


def test_another_text_encoder_takes_the_place_of_that_of_the_start(tmp_path, capsys):
    start = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    save_folder(tmp_path / "start", codec, start, "byt5")
    config = with_shipped_text(init_from=str(tmp_path / "start"), text_checkpoint="tiny")
    loaded = load_start(config)
    assert "takes the place of the text encoder of init_from" in capsys.readouterr().err
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    state, _, _ = make_separator_training(config, codec, mesh, loaded)
    shipped = weights(load_networks("tiny")[1].text_encoder)
    jax.tree.map(np.testing.assert_array_equal, state.params["text_encoder"], shipped)
    theirs = weights(start)["separator"]
    kept = {name: part for name, part in state.params["separator"].items() if name in theirs}
    assert kept.pop("project_text")["kernel"].shape[0] == SHIPPED_TEXT.width
    for name, part in kept.items():
        jax.tree.map(np.testing.assert_array_equal, part, theirs[name])
    alone = dataclasses.replace(config, text_checkpoint="", data=TINY.data)
    with pytest.raises(UserError, match=r"init_from=.* has another text encoder or separator"):
        make_separator_training(alone, codec, mesh, load_start(alone))


def test_a_start_of_another_codec_is_said_and_is_no_base_of_adapters(tmp_path, capsys):
    codecs = [filled(lambda: Codec(TINY.codec, rngs=Rngs(0)), seed) for seed in (0, 1)]
    start = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    save_folder(tmp_path / "start", codecs[0], start, "byt5")
    config = dataclasses.replace(TINY, init_from=str(tmp_path / "start"), codec_checkpoint="other")
    load_start(config, codec=codecs[0])
    assert not capsys.readouterr().err
    line = "was trained on the latents of another codec than codec_checkpoint=other"
    load_start(config, codec=codecs[1])
    assert capsys.readouterr().err == f"note: init_from={config.init_from} {line}\n"
    config = dataclasses.replace(config, train_text=False, lora=LoraConfig(rank=1))
    with pytest.raises(UserError, match=f"{line}, and an adapter of it is used with its own"):
        load_start(config, codec=codecs[1])
    own = with_shipped_text(init_from=config.init_from, text_checkpoint="tiny", lora=config.lora)
    with pytest.raises(UserError, match=r"adapts .* with its own text encoder, which has voc"):
        load_start(own)


@pytest.mark.parametrize("file", ["cache.json", "labels.json"])
def test_latents_of_another_codec_are_refused(tmp_path, file):
    codec, other = (
        parallel.init_sharded(lambda seed=seed: Codec(TINY.codec, rngs=Rngs(seed)))
        for seed in range(2)
    )
    index = {"sample_rate": codec.config.sample_rate, "hop": codec.config.hop, "samples": 4_000}
    index |= {"recipe": pipeline.recipe(TINY.data), "codec": "theirs", "video_width": 0}
    frames = 4_000 // codec.config.hop
    probe = latents_probe(codec, min(frames, 100))
    write_json(tmp_path / file, index | {"format": 1 + 3 * (file[0] == "c"), "probe": list(probe)})
    labels = dataclasses.replace(TINY.data.labels, folder=str(tmp_path), share=1.0)
    named = {"cache": str(tmp_path)} if file == "cache.json" else {"labels": labels}
    data = dataclasses.replace(TINY.data, **named)
    check_latents(data, codec)
    with pytest.raises(UserError, match="has the latents of another codec"):
        check_latents(data, other)


def test_what_a_cache_mixes_otherwise_is_said(tmp_path):
    data = dataclasses.replace(TINY.data, cache=str(tmp_path))
    write_json(tmp_path / "cache.json", {"format": 4, "recipe": pipeline.recipe(data)})
    assert cache_notes(data) == []
    mix = dataclasses.replace(data.mix, near_share=0.25, seconds=0.5)
    notes = cache_notes(dataclasses.replace(data, mix=mix))
    assert notes == [f"note: {tmp_path} was mixed with mix.near_share 0.0, not 0.25"]


def test_a_run_that_goes_on_with_another_cache_says_so(tmp_path, monkeypatch, capsys):
    for name in ("one", "copy", "other"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "cache.json", {"seed": len(name)})
    config, kept = {}, {}
    for name in ("one", "copy", "other"):
        data = dataclasses.replace(TINY.data, cache=str(tmp_path / name))
        config[name] = dataclasses.replace(TINY, data=data)
    write_json(tmp_path / "copy" / "cache.json", {"seed": len("one")})
    monkeypatch.setattr(Workdir, "kept_in_checkpoint", lambda _, name: kept.get(name))
    workdir = Workdir(tmp_path / "run")
    kept = train.kept_sounds(workdir, config["one"])
    assert train.kept_sounds(workdir, config["copy"]) == kept  # one that was moved
    assert capsys.readouterr().err == ""
    assert train.kept_sounds(workdir, config["other"]) != kept
    assert capsys.readouterr().err.startswith("note: the caches or labels are not those")


def test_a_short_noise_has_the_first_latents_of_a_long_one():
    """So that a cache of long mixtures is checked by a hundred frames of it."""
    codec = load_codec("tiny")
    long, short = (latents_probe(codec, frames) for frames in (200, 100))
    np.testing.assert_allclose(short, long, atol=1e-4)
