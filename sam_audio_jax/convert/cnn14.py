"""PANNs' Cnn14: the names of its tensors and its published files (docs/scoring.md, "Cnn14").

Both published checkpoints hold the same tensors, among them the constants of the front end, which
are checked, and counters of training, which are left out: neither are parameters here.
"""

import pathlib

import numpy as np
from jax.sharding import Mesh

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.convert.filter_bank import check_filter_bank
from sam_audio_jax.convert.names import LINEAR, Row, Table, TensorLayout, batch_norm_rows
from sam_audio_jax.convert.tensors import State, Tensor, open_safetensors, open_torch
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.cnn14 import Cnn14, Cnn14Config

MODEL_KEY = "model"  # of the tensors in a .pth file
COUNTER = "num_batches_tracked"
REAL, IMAGINARY = (f"spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag"))
FILTERS = "logmel_extractor.melW"
CONSTANTS = (REAL, IMAGINARY, FILTERS)
CONV2D = TensorLayout(  # [out, in, frames, bins] <-> [frames, bins, in, out]
    lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)
)


def cnn14_rows(config: Cnn14Config) -> list[Row]:
    """Every parameter of a network of this configuration."""
    rows = batch_norm_rows("bn0", "norm")
    for number in range(len(config.widths)):
        for layer, name in ((1, "first"), (2, "second")):
            theirs, ours = f"conv_block{number + 1}", f"blocks.{number}.{name}"
            rows.append(Row(f"{theirs}.conv{layer}.weight", f"{ours}.kernel", CONV2D))
            rows += batch_norm_rows(f"{theirs}.bn{layer}", f"{ours}.norm")
    for theirs, ours in (("fc1", "embed"), ("fc_audioset", "classify")):
        rows.append(Row(f"{theirs}.weight", f"{ours}.kernel", LINEAR))
        rows.append(Row(f"{theirs}.bias", f"{ours}.bias"))
    return rows


def cnn14_table(config: Cnn14Config) -> Table[Cnn14]:
    """The names of all tensors of a network of this configuration."""
    return Table(lambda: Cnn14(config, rngs=Rngs(0)), cnn14_rows(config), 0, "Cnn14 checkpoint")


def used(state: State) -> dict[str, Tensor]:
    """The tensors without the front end's constants and the counters of training."""
    return {
        name: tensor
        for name, tensor in state.items()
        if name not in CONSTANTS and not name.endswith(f".{COUNTER}")
    }


def cnn14_from_reference(state: State, config: Cnn14Config, mesh: Mesh | None = None) -> Cnn14:
    """Builds the network. Raises `UserError` for tensors or a filter bank that do not fit."""
    check_filter_bank(
        state,
        FILTERS,
        what="Cnn14",
        sample_rate=config.sample_rate,
        window=config.window,
        mels=config.mels,
        low_hz=config.low_hz,
        high_hz=config.high_hz,
    )
    return cnn14_table(config).build(used(state), mesh)


def load_cnn14(name: str, config: Cnn14Config, mesh: Mesh | None = None) -> Cnn14:
    """Reads a published `.pth` file, or its tensors in a `.safetensors` file.

    Raises `UserError` when there is no such file or when it does not fit.
    """
    path = pathlib.Path(name)
    if not path.is_file():
        raise UserError(f"no Cnn14 checkpoint at {path}")
    pickled = path.suffix != ".safetensors"
    state = open_torch(path, MODEL_KEY) if pickled else open_safetensors(path)
    return cnn14_from_reference(state, config, mesh)


def filters(config: Cnn14Config) -> np.ndarray:
    """The filter bank of the front end, `[frequencies, mels]`."""
    return mel_filters(
        config.sample_rate, config.window, config.mels, config.low_hz, config.high_hz
    )
