"""The token vectors of the package wordllama as a text encoder without layers.

wordllama (PyPI, MIT) carries vectors of 256 for the 32,000 tokens of Llama 2's tokenizer, distilled
from the embeddings of large language models: words of one meaning are near each other, also those
that no caption of ours has. A small separator learns to listen to them instead of learning English
from a few hundred captions. As a T5 encoder of depth 0 they are stored, frozen and shipped as any
other text encoder.
"""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.convert.t5 import t5_config_to_reference
from sam_audio_jax.convert.tensors import State, open_safetensors
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object

NAME = "wordllama"  # an installed package of this name is found without importing it
WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
END = "</s>"  # closes a text, so that one without words has a token, too


def find_word_vectors(name: str) -> pathlib.Path | None:
    """The package's folder under this name: the folder itself, or the installed `wordllama`.

    None for anything else. Raises `UserError` where the package is named and not installed.
    """
    folder = pathlib.Path(name)
    if (folder / WEIGHTS).is_file():
        return folder
    if name != NAME or folder.exists():
        return None
    spec = importlib.util.find_spec(NAME)
    if spec is None or spec.origin is None:
        raise UserError(f"{NAME} is not installed: pip install {NAME}, or name its folder")
    return pathlib.Path(spec.origin).parent


def read_word_vectors(
    folder: pathlib.Path,
) -> tuple[dict[str, Any], State, Mapping[str, Mapping[str, Any]]]:
    """`config.json`, tensors and tokenizer files (by name) of the text encoder, unread.

    The vectors keep their float16. Raises `UserError` for a file that is not as published.
    """
    (file, key) = (folder / WEIGHTS, "embedding.weight")
    stored = open_safetensors(file)
    if set(stored) != {key} or len(stored[key].shape) != 2:
        raise UserError(f"{file} must hold {key} alone, as in wordllama 0.4")
    tokens, width = stored[key].shape
    config = T5Config(vocab_size=tokens, width=width, head_dim=1, heads=1, mlp=1, depth=0)
    state = {"shared.weight": stored[key]}
    return t5_config_to_reference(config), state, _tokenizer(folder / TOKENIZER, tokens)


def _tokenizer(file: pathlib.Path, tokens: int) -> dict[str, dict[str, Any]]:
    values = read_object(file)
    vocabulary = values.get("model", {}).get("vocab", {})
    if len(vocabulary) != tokens or END not in vocabulary:
        raise UserError(f"{file} must have {tokens} tokens with {END} among them, as the vectors")
    end = {"id": END, "ids": [vocabulary[END]], "tokens": [END]}
    text, close = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": END, "type_id": 0}},
    )
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, close],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}, close],
        "special_tokens": {END: end},
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": END, "eos_token": END}
    return {"tokenizer.json": values, "tokenizer_config.json": settings}
