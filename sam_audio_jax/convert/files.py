"""Files of a model folder: JSON, tensors, and where a named folder lies."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sam_audio_jax.errors import UserError


def find_folder(name: str, patterns: tuple[str, ...]) -> pathlib.Path:
    """A local folder, or the snapshot of a Hugging Face id (only files that match)."""
    folder = pathlib.Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UserError(f"no model folder {name}")
    try:
        found = huggingface_hub.snapshot_download(name, allow_patterns=list(patterns))
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


def read_state(folder: pathlib.Path, stem: str) -> dict[str, np.ndarray]:
    """Tensors of `stem`.safetensors, else of `stem`.pt."""
    path = folder / f"{stem}.safetensors"
    if path.exists():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    path = folder / f"{stem}.pt"
    if not path.exists():
        raise UserError(f"{folder} has neither {stem}.safetensors nor {stem}.pt")
    return _read_pt(path)


def _read_pt(path: pathlib.Path) -> dict[str, np.ndarray]:
    """A pickled state dict, weights only (nothing in the file can run)."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"{path} needs torch to be read: pip install 'sam-audio-jax[torch]', "
            "or give checkpoint.safetensors"
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def write_state(path: pathlib.Path, state: Mapping[str, np.ndarray], dtype: str) -> None:
    largest = {name: float(np.abs(w).max(initial=0.0)) for name, w in state.items()}
    over = [name for name, peak in largest.items() if peak > float(np.finfo(dtype).max)]
    if over:
        raise UserError(f"{over[0]} has values up to {largest[over[0]]:g}, too large for {dtype}")
    save_file({n: w.astype(dtype) for n, w in state.items()}, path, metadata={"format": "pt"})
