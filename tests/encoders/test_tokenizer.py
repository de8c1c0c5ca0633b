"""Tokenizers by name: bytes, folders with a tokenizer, and what cannot serve as one."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError


def test_bytes_need_no_file():
    ids, mask = tokenizer_for("byt5")(["dog", ""])
    np.testing.assert_array_equal(ids, [[ord(c) + 3 for c in "dog"] + [1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(mask, [[True] * 4, [True, False, False, False]])
    assert ids.dtype == np.int32


def test_fixed_length_pads_and_cuts_but_keeps_the_end_token():
    ids, mask = tokenizer_for("byt5")(["a", "abcdefgh"], length=4)
    assert ids.shape == mask.shape == (2, 4)
    np.testing.assert_array_equal(ids[:, -1], [0, 1])
    assert mask[1].all()


def test_unknown_tokenizer_is_the_users_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no tokenizer"):
        tokenizer_for(str(tmp_path / "nothing"))


def save_byte_pairs(folder, **changes):
    """Writes a tokenizer folder like ModernBERT's: byte-level pairs, here without any merge."""
    special = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3}
    letters = {c: i + 4 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pairs = Tokenizer(models.BPE(special | letters, [], unk_token="[UNK]"))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    pairs.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    pairs.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"} | changes
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(
        json.dumps({"nth_text_layer": 22})
    )  # not a model type that transformers knows


def test_a_models_folder_is_allowed(tmp_path):
    save_byte_pairs(tmp_path, padding_side="left")
    ids, mask = tokenizer_for(str(tmp_path))(["Dog", "", "dog"])
    assert ids[:, 0].tolist() == [1, 1, 1]
    assert mask.sum(axis=1).tolist() == [5, 2, 5]
    np.testing.assert_array_equal(ids[1], [1, 2, 3, 3, 3])
    assert ids[0, 1] != ids[2, 1]  # texts are not changed, nor are capitals


def test_a_tokenizer_that_cannot_pad_is_the_users_error(tmp_path):
    save_byte_pairs(tmp_path, pad_token=None)
    with pytest.raises(UserError, match="no padding token"):
        tokenizer_for(str(tmp_path))
