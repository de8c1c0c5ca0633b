"""Files of a model folder: where a named folder is, its tensors, its tokenizer."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

import huggingface_hub

from sam_audio_jax.bounds import fits
from sam_audio_jax.convert.tensors import Stored, open_safetensors, open_torch
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.files import read_object

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
)


SHIPPED = pathlib.Path(__file__).parent.parent / "pretrained"


def shipped_folder(name: str) -> pathlib.Path | None:
    """The folder of a network that the package carries, by its name; None if it carries none."""
    folder = SHIPPED / name
    return folder if folder.parent == SHIPPED and (folder / "config.json").is_file() else None


def find_folder(
    name: str, patterns: tuple[str, ...], *, revision: str | None = None
) -> pathlib.Path:
    """A local folder, or the snapshot of a Hugging Face id (only files that match `patterns`).

    `revision` is a branch, tag or commit on the hub; None: its default branch. Raises `UserError`
    when there is no such folder or id, or when the hub does not give it.
    """
    folder = pathlib.Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UserError(f"no model folder {name}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        snapshot = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), local_files_only=offline
        )
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise UserError(f"{name} is no folder, nor in the Hugging Face cache; {reason}") from error
    except huggingface_hub.errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: accept its terms at huggingface.co/{name} and run `hf auth login`"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name} is neither a folder nor a Hugging Face id: {first_line(error)}"
        ) from error
    return pathlib.Path(snapshot)


def weight_files(stem: str) -> tuple[str, ...]:
    """Patterns of all files from which `open_state` reads a stem, with the parts of an index."""
    return f"{stem}*.safetensors*", f"{stem}.pt"


def open_state(folder: pathlib.Path, *stems: str) -> dict[str, Stored]:
    """The tensors of the first stem that has a file, unread.

    That is `stem`.safetensors, `stem`.safetensors.index.json with the parts that it names, or
    `stem`.pt. Raises `UserError` when no stem has one, or for a file that is not whole.
    """
    for stem in stems:
        whole, index, pickled = (
            folder / f"{stem}{suffix}"
            for suffix in (".safetensors", ".safetensors.index.json", ".pt")
        )
        if whole.exists():
            return open_file(whole)
        if index.exists():
            return _open_parts(index)
        if pickled.exists():
            return open_file(pickled)
    names = [f"{stem}{suffix}" for stem in stems for suffix in (".safetensors", ".pt")]
    raise UserError(f"{folder} has no weights: there is none of {', '.join(names)}")


def open_file(path: pathlib.Path) -> dict[str, Stored]:
    """The tensors of one .safetensors or .pt file, unread."""
    return open_torch(path) if path.suffix == ".pt" else open_safetensors(path)


@contextlib.contextmanager
def reading(folder: str | os.PathLike) -> Iterator[None]:
    """Turns what a config or header of an odd form raises while it is read into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError, IndexError) as error:
        raise UserError(
            f"{folder} describes no network: {type(error).__name__}: {first_line(error)}"
        ) from error


def _open_parts(index: pathlib.Path) -> dict[str, Stored]:
    part_of = read_object(index).get("weight_map", {})
    if not fits(dict, part_of) or not all(
        isinstance(part, str) and part == os.path.basename(part) for part in part_of.values()
    ):
        raise UserError(f"{index}: weight_map must give a file of this folder for each tensor")
    parts = {
        part: open_safetensors(index.with_name(part)) for part in sorted(set(part_of.values()))
    }
    lost = [f"{name} in {part}" for name, part in part_of.items() if name not in parts[part]]
    if lost:
        raise UserError(f"{index} names tensors that are not there: {', '.join(lost)}")
    return {name: parts[part][name] for name, part in part_of.items()}


def has_tokenizer(folder: pathlib.Path) -> bool:
    """Whether any file of a tokenizer is in the folder."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def copy_tokenizer(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies the files of a tokenizer, as many as there are."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
