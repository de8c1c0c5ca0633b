import numpy as np
import pytest

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
