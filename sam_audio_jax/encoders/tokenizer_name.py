"""Names of tokenizers that hold in every installation, for the configs that runs keep."""

import pathlib
import re

SHIPPED = pathlib.Path(__file__).parent.parent / "pretrained"
# The path of one that the package carries, in this installation or in another one.
SHIPPED_PATH = re.compile(r"(?:.*[/\\])?sam_audio_jax[/\\]pretrained[/\\]([\w-]+)[/\\]t5")


def portable_name(name: str) -> str:
    """The name of the shipped model whose tokenizer is at the path `name`; any other as it is."""
    found = SHIPPED_PATH.fullmatch(name)
    return found[1] if found and (SHIPPED / found[1] / "t5").is_dir() else name


def tokenizer_folder(name: str) -> str:
    """The folder of the tokenizer of a shipped model, by its name or path; any other as it is."""
    folder = SHIPPED / portable_name(name) / "t5"
    return str(folder) if folder.parent.parent == SHIPPED and folder.is_dir() else name
