"""Tokenizers, which turn texts into token ids: bytes, or any tokenizer of transformers by name.

The ids of T5: docs/prompt_encoders.md, "T5".
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sam_audio_jax.encoders.text_form import normalize
from sam_audio_jax.encoders.tokenizer_name import tokenizer_folder
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.nn.call import power_of_two

MAX_TOKENS = 512  # of a text, with its end token; `max_length` of the reference


@runtime_checkable
class Tokenizer(Protocol):
    """Maps texts to ids and a mask, padded on the right to the longest text or to `length`.

    The mask is True at real tokens.
    """

    def __call__(
        self, texts: list[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "texts tokens"], Bool[np.ndarray, "texts tokens"]]: ...


def pad_tokens(
    ids: Int[np.ndarray, "batch tokens"], mask: Bool[np.ndarray, "batch tokens"], *, least: int
) -> tuple[Int[Array, "batch padded"], Bool[Array, "batch padded"]]:
    """A tokenizer's result on the device, of `least` tokens or a larger power of two."""
    extra = ((0, 0), (0, power_of_two(ids.shape[1], least=least) - ids.shape[1]))
    return jnp.asarray(np.pad(ids, extra)), jnp.asarray(np.pad(mask, extra))


@dataclasses.dataclass(frozen=True)
class PretrainedTokenizer:
    """Any tokenizer of transformers; texts are truncated to `length` (or 512) tokens."""

    pretrained: Any  # a transformers tokenizer, called as in its documentation
    normalizes: bool = False  # brings texts to the form of `text_form` first, as our models need

    def __call__(
        self, texts: list[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "texts tokens"], Bool[np.ndarray, "texts tokens"]]:
        encoded = self.pretrained(
            self._in_form(texts),
            truncation=True,
            max_length=length or MAX_TOKENS,
            padding="max_length" if length else "longest",
            return_tensors="np",
        )
        return encoded["input_ids"].astype(np.int32), encoded["attention_mask"].astype(bool)

    def describe_cut(self, text: str, length: int | None = None) -> str:
        """Says how much of a text is read, of `length` (or 512) tokens; "" if all of it is."""
        (formed,) = self._in_form([text])
        length = length or MAX_TOKENS
        ids = self.pretrained(formed, verbose=False)["input_ids"]
        if len(ids) <= length:
            return ""
        marks = self.pretrained.num_special_tokens_to_add()
        cut = self.pretrained(formed, truncation=True, max_length=length)["input_ids"]
        read = self.pretrained.decode(cut, skip_special_tokens=True)
        return (
            f"has {len(ids) - marks} tokens, of which the first {length - marks} are read, "
            f"to {read[-20:]!r}"
        )

    def _in_form(self, texts: list[str]) -> list[str]:
        return [normalize(text) for text in texts] if self.normalizes else texts


def tokenizer_for(name: str, *, normalizes: bool = False) -> PretrainedTokenizer:
    """Loads the tokenizer `name`; one that `normalizes` is for our own models.

    Allowed are `byt5` (UTF-8 bytes, needs no file), a shipped model, a folder with a tokenizer,
    which may be a model's folder, and a Hugging Face id. Raises UserError for anything else and
    for a tokenizer without a padding token.
    """
    import transformers  # not above: most of a second, for processes that read texts alone

    if name == "byt5":
        return PretrainedTokenizer(transformers.ByT5Tokenizer(), normalizes)
    try:
        pretrained = transformers.AutoTokenizer.from_pretrained(tokenizer_folder(name))
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer {name!r}: {first_line(error)} "
            "(allowed: byt5, a shipped model, a tokenizer folder, a Hugging Face id)"
        ) from error
    if pretrained.pad_token is None:
        raise UserError(f"tokenizer {name!r} has no padding token, which batches of texts need")
    pretrained.padding_side = "right"  # text models count positions from the left
    return PretrainedTokenizer(pretrained, normalizes)
