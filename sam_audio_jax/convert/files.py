"""Files of a model folder: JSON, tensors, and where a named folder lies."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import huggingface_hub

from sam_audio_jax.convert.tensors import Stored, open_safetensors, open_torch
from sam_audio_jax.errors import UserError


def find_folder(name: str, patterns: tuple[str, ...]) -> pathlib.Path:
    """A local folder, or the snapshot of a Hugging Face id (only files that match)."""
    folder = pathlib.Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UserError(f"no model folder {name}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        found = huggingface_hub.snapshot_download(
            name, allow_patterns=list(patterns), local_files_only=offline
        )
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise UserError(f"{name} is no folder, nor in the Hugging Face cache; {reason}") from error
    except huggingface_hub.errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: accept its terms at huggingface.co/{name} and run `hf auth login`"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name} is neither a folder nor a Hugging Face id: {reason}") from error
    return pathlib.Path(found)


def read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=4) + "\n")


def open_state(folder: pathlib.Path, stem: str) -> dict[str, Stored]:
    """Tensors of `stem`.safetensors (whole, or in parts with an index) or `stem`.pt, unread."""
    whole, index, pickled = (
        folder / f"{stem}{end}" for end in (".safetensors", ".safetensors.index.json", ".pt")
    )
    if whole.exists():
        return open_file(whole)
    if index.exists():
        return _open_parts(index)
    if pickled.exists():
        return open_file(pickled)
    raise UserError(f"{folder} has neither {whole.name} nor {pickled.name}")


def open_file(path: pathlib.Path) -> dict[str, Stored]:
    """Tensors of one .safetensors or .pt file, unread."""
    return open_torch(path) if path.suffix == ".pt" else open_safetensors(path)


def _open_parts(index: pathlib.Path) -> dict[str, Stored]:
    places = read_json(index).get("weight_map", {})
    parts = {part: open_safetensors(index.with_name(part)) for part in sorted(set(places.values()))}
    lost = [f"{name} in {part}" for name, part in places.items() if name not in parts[part]]
    if lost:
        raise UserError(f"{index} names tensors that are not there: {', '.join(lost)}")
    return {name: parts[part][name] for name, part in places.items()}
