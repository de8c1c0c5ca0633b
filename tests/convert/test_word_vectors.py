"""Word vectors of a package become a text encoder: its vectors, its tokens, or one line."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from sam_audio_jax.convert.load import convert, load_text_encoder
from sam_audio_jax.convert.word_vectors import TOKENIZER, WEIGHTS
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError

WORDS = ("<unk>", "<s>", "</s>", "▁", "▁a", "▁dog", "a", "d", "o", "g", "do", "dog")
MERGES = ("d o", "do g", "▁ a", "▁ dog")


def package(folder: pathlib.Path) -> np.ndarray:
    """A folder as the package has it, with few tokens; returns its vectors."""
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 4)).astype(np.float16)
    for name in (WEIGHTS, TOKENIZER):
        (folder / name).parent.mkdir(parents=True)
    save_file({"embedding.weight": vectors}, folder / WEIGHTS)
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": False}
    model |= {"vocab": {word: row for row, word in enumerate(WORDS)}, "merges": list(MERGES)}
    prepend = {"type": "Prepend", "prepend": "▁"}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [prepend, space]},
        "post_processor": None,
        "model": model,
    }
    (folder / TOKENIZER).write_text(json.dumps(tokenizer))
    return vectors


def test_a_text_is_the_vectors_of_its_tokens_and_an_end(tmp_path):
    vectors = package(tmp_path / "package")
    convert(str(tmp_path / "package"), str(tmp_path / "encoder"))
    encoder, name = load_text_encoder(str(tmp_path / "encoder"))
    ids, mask = tokenizer_for(name, normalizes=True)(["A dog.", ""])
    rows = [WORDS.index(word) for word in ("▁a", "▁dog", "</s>")]
    np.testing.assert_array_equal(ids[0], rows)
    np.testing.assert_array_equal(mask, [[True, True, True], [True, False, False]])
    states = np.asarray(encoder(jnp.asarray(ids), jnp.asarray(mask)))
    np.testing.assert_array_equal(states[0], vectors[rows].astype(np.float32))
    convert(str(tmp_path / "encoder"), str(tmp_path / "copy"))
    for file in (tmp_path / "encoder").iterdir():
        assert file.read_bytes() == (tmp_path / "copy" / file.name).read_bytes()


def test_what_is_no_such_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wordllama is not installed: pip install wordllama"):
        convert("wordllama", str(tmp_path / "encoder"))
    package(tmp_path / "package")
    save_file({"embedding.weight": np.zeros((3, 4), np.float16)}, tmp_path / "package" / WEIGHTS)
    with pytest.raises(UserError, match="must have 3 tokens with </s> among them"):
        convert(str(tmp_path / "package"), str(tmp_path / "encoder"))
    save_file({"other": np.zeros((3, 4), np.float16)}, tmp_path / "package" / WEIGHTS)
    with pytest.raises(UserError, match=r"must hold embedding\.weight alone"):
        convert(str(tmp_path / "package"), str(tmp_path / "encoder"))
    assert not (tmp_path / "encoder").exists()
