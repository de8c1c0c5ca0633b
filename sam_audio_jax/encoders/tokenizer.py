"""Text prompts to token ids (docs/prompt_encoders.md, "T5"): bytes, or any tokenizer by name."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
import transformers
from jaxtyping import Bool, Int

from sam_audio_jax.errors import UserError

MAX_TOKENS = 512  # the end token included; upstream's `max_length`


@runtime_checkable
class Tokenizer(Protocol):
    """Ids padded on the right to the longest text or to `length`; mask True = real token."""

    def __call__(
        self, texts: list[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "texts tokens"], Bool[np.ndarray, "texts tokens"]]: ...


@dataclasses.dataclass(frozen=True)
class PretrainedTokenizer:
    """Any tokenizer of transformers; texts longer than `length` (or 512) lose their end."""

    pretrained: Any  # a transformers tokenizer, called as in its documentation

    def __call__(
        self, texts: list[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "texts tokens"], Bool[np.ndarray, "texts tokens"]]:
        out = self.pretrained(
            texts,
            truncation=True,
            max_length=length or MAX_TOKENS,
            padding="max_length" if length else "longest",
            return_tensors="np",
        )
        return out["input_ids"].astype(np.int32), out["attention_mask"].astype(bool)


def tokenizer_for(name: str) -> PretrainedTokenizer:
    """`byt5` (UTF-8 bytes, needs no file), a folder with a tokenizer, or a Hugging Face id.

    T5's, ModernBERT's or another one that transformers reads; a model's folder will do.
    """
    if name == "byt5":
        return PretrainedTokenizer(transformers.ByT5Tokenizer())
    try:
        pretrained = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"no tokenizer {name!r}: {reason} "
            "(allowed: byt5, a tokenizer folder, a Hugging Face id)"
        ) from error
    if pretrained.pad_token is None:
        raise UserError(f"tokenizer {name!r} has no padding token, which batches of texts need")
    pretrained.padding_side = "right"  # text models count positions from the left
    return PretrainedTokenizer(pretrained)
