"""The codec: its part of `config.json`, names of tensors (docs/codec.md, "Names"), its own folder.

Names are without the checkpoint's `audio_codec.` prefix, unless a prefix is an argument.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.config import from_dict, to_dict
from sam_audio_jax.convert.model_files import open_state
from sam_audio_jax.convert.names import CONV, LINEAR, SAME, Row, Table, TensorLayout
from sam_audio_jax.convert.tensors import State, write_state
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_json, whole_folder, write_json
from sam_audio_jax.nn.rngs import Rngs

FIELDS = (
    "sample_rate",
    "encoder_dim",
    "encoder_rates",
    "latent_dim",
    "decoder_dim",
    "decoder_rates",
    "codebook_dim",
)
# What upstream's codec config also holds and never uses.
UNUSED = {"n_codebooks": 16, "codebook_size": 1024, "quantizer_dropout": False}

GAIN = TensorLayout(lambda w: w.reshape(-1), lambda w: w.reshape(-1, 1, 1))
ALPHA = TensorLayout(lambda w: w.reshape(-1), lambda w: w.reshape(1, -1, 1))
# [in, out, window]
TRANSPOSED = TensorLayout(lambda w: w.transpose(2, 0, 1), lambda w: w.transpose(1, 2, 0))


def _normed(theirs: str, ours: str, layout: TensorLayout = CONV) -> Iterator[Row]:
    yield Row(f"{theirs}.weight_g", f"{ours}.scale", GAIN)
    yield Row(f"{theirs}.weight_v", f"{ours}.direction", layout)
    yield Row(f"{theirs}.bias", f"{ours}.bias")


def _plain(theirs: str, ours: str, layout: TensorLayout = CONV) -> Iterator[Row]:
    yield Row(f"{theirs}.weight", f"{ours}.kernel", layout)
    yield Row(f"{theirs}.bias", f"{ours}.bias")


def _residual(theirs: str, ours: str) -> Iterator[Row]:
    yield Row(f"{theirs}.block.0.alpha", f"{ours}.snake_in.alpha", ALPHA)
    yield from _normed(f"{theirs}.block.1", f"{ours}.dilated")
    yield Row(f"{theirs}.block.2.alpha", f"{ours}.snake_out.alpha", ALPHA)
    yield from _normed(f"{theirs}.block.3", f"{ours}.pointwise")


def encoder_rows(depth: int) -> Iterator[Row]:
    """Every tensor between a wave and the moments of its latents, for `depth` strided blocks."""
    yield from _normed("encoder.block.0", "encoder.stem")
    for i in range(depth):
        theirs, ours = f"encoder.block.{i + 1}", f"encoder.blocks.{i}"
        for j in range(3):
            yield from _residual(f"{theirs}.block.{j}", f"{ours}.units.{j}")
        yield Row(f"{theirs}.block.3.alpha", f"{ours}.snake.alpha", ALPHA)
        yield from _normed(f"{theirs}.block.4", f"{ours}.down")
    yield Row(f"encoder.block.{depth + 1}.alpha", "encoder.snake.alpha", ALPHA)
    yield from _normed(f"encoder.block.{depth + 2}", "encoder.out")
    yield from _normed("quantizer.in_proj", "in_proj")


def _decoder(depth: int) -> Iterator[Row]:
    yield from _normed("quantizer.out_proj", "out_proj")
    yield from _normed("decoder.model.0", "decoder.stem")
    for i in range(depth):
        theirs, ours = f"decoder.model.{i + 1}.block", f"decoder.blocks.{i}"
        yield Row(f"{theirs}.0.alpha", f"{ours}.snake.alpha", ALPHA)
        yield from _normed(f"{theirs}.1", f"{ours}.up", TRANSPOSED)
        for slot, j in ((4, 0), (5, 1), (8, 2)):
            yield from _residual(f"{theirs}.{slot}", f"{ours}.units.{j}")
    # The reference keeps the last layers of the clean decoder under the watermark's name.
    last = "decoder.wm_model.encoder_block.pre"
    yield Row(f"{last}.0.alpha", "decoder.snake.alpha", ALPHA)
    yield from _normed(f"{last}.1", "decoder.out")


def _elu_unit(theirs: str, ours: str) -> Iterator[Row]:
    yield from _plain(f"{theirs}.block.1", f"{ours}.squeeze")
    yield from _plain(f"{theirs}.block.3", f"{ours}.expand")


def _lstm(theirs: str, ours: str, depth: int) -> Iterator[Row]:
    for k in range(depth):
        yield Row(f"{theirs}.weight_ih_l{k}", f"{ours}.layers.{k}.input", LINEAR)
        yield Row(f"{theirs}.weight_hh_l{k}", f"{ours}.layers.{k}.hidden", LINEAR)
        yield Row(f"{theirs}.bias_ih_l{k}", f"{ours}.layers.{k}.input_bias")
        yield Row(f"{theirs}.bias_hh_l{k}", f"{ours}.layers.{k}.hidden_bias")


def _watermark(depth: int, lstm_depth: int) -> Iterator[Row]:
    mark = "decoder.wm_model"
    yield from _plain(f"{mark}.encoder_block.pre.3", "watermark.stem")
    for i in range(depth):  # decoder block i + 1 holds both mirrored stages of its width
        theirs = f"decoder.model.{i + 1}.block"
        down, up = f"watermark.down.{depth - 1 - i}", f"watermark.up.{i}"
        yield from _elu_unit(f"{theirs}.7", f"{down}.unit")
        yield from _plain(f"{theirs}.11", f"{down}.conv")
        yield from _plain(f"{theirs}.3", up, TRANSPOSED)
        yield from _elu_unit(f"{theirs}.6", f"{up}.unit")
    yield from _lstm(f"{mark}.encoder_block.post.0.lstm", "watermark.lstm_down", lstm_depth)
    yield from _plain(f"{mark}.encoder_block.post.2", "watermark.to_code")
    yield Row(f"{mark}.msg_processor.msg_processor.weight", "watermark.message", SAME)
    yield from _plain(f"{mark}.decoder_block.pre.0", "watermark.from_code")
    yield from _lstm(f"{mark}.decoder_block.pre.1.lstm", "watermark.lstm_up", lstm_depth)
    yield from _plain(f"{mark}.decoder_block.post.1", "watermark.out")


def codec_rows(config: CodecConfig, prefix: str = "") -> list[Row]:
    """Every tensor of a codec of this configuration."""
    rows = [*encoder_rows(len(config.encoder_rates)), *_decoder(len(config.decoder_rates))]
    if config.watermark_rates:
        rows += _watermark(len(config.decoder_rates), config.watermark_lstm_depth)
    return [dataclasses.replace(row, theirs=prefix + row.theirs) for row in rows]


def _watermark_fields(state: State, depth: int) -> dict[str, Any]:
    """Sizes of the watermark that upstream does not store, from the shapes of its tensors.

    A state without a watermark has no rates. Where one of its tensors is missing, the shape is
    taken from its counterpart or the default; the table of these sizes then names what is missing.
    """
    message = "decoder.wm_model.msg_processor.msg_processor.weight"
    blocks = [f"decoder.model.{i + 1}.block" for i in range(depth)]
    ups, downs = ([f"{block}.{slot}.weight" for block in blocks] for slot in (3, 11))
    shapes = {n: state[n].shape for n in (message, *ups, *downs) if n in state}
    if not shapes:
        return {"watermark_rates": ()}
    windows = [
        shapes.get(up) or shapes.get(down, (2,)) for up, down in zip(ups, downs, strict=True)
    ]
    lstm = "decoder.wm_model.decoder_block.pre.1.lstm.weight_ih_l"
    default = (2 * CodecConfig.watermark_bits, CodecConfig.watermark_code)
    bits, code = shapes[message] if len(shapes.get(message, ())) == 2 else default
    return {
        "watermark_rates": tuple(max(1, window[-1] // 2) for window in windows),
        "watermark_code": code,
        "watermark_bits": bits // 2,
        "watermark_lstm_depth": sum(name.startswith(lstm) for name in state),
    }


@functools.lru_cache(maxsize=16)
def codec_table(config: CodecConfig, prefix: str = "") -> Table[Codec]:
    """The names of all tensors of a codec of this configuration."""
    rows = codec_rows(config, prefix)
    return Table(lambda: Codec(config, rngs=Rngs(0)), rows, 0, "codec checkpoint")


def codec_config(
    values: Mapping[str, Any],
    state: State,
    latents: Mapping[str, float] | None = None,
    prefix: str = "",
) -> CodecConfig:
    """Reads "audio_codec" of `config.json`, and the sizes of the watermark from the tensors.

    Upstream stores mean and std but never uses them: those in `latents` count. Raises `UserError`
    for an unknown key.
    """
    unknown = sorted(set(values) - {*FIELDS, *UNUSED, "mean", "std"})
    if unknown:
        raise UserError(
            f"config.json: unknown key audio_codec.{unknown[0]}, allowed are "
            + ", ".join((*FIELDS, *UNUSED))
        )
    fields = {
        name: tuple(v) if isinstance(v := values[name], list) else v
        for name in FIELDS
        if name in values
    }
    depth = len(fields.get("decoder_rates", CodecConfig.decoder_rates))
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return CodecConfig(**fields, **(latents or {}), **_watermark_fields(bare, depth))


def codec_config_to_reference(config: CodecConfig, known: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `codec_config`; `known` is an "audio_codec" whose other keys are kept."""
    fields = {name: getattr(config, name) for name in FIELDS}
    fields |= {name: list(v) for name, v in fields.items() if isinstance(v, tuple)}
    return {**UNUSED, "mean": 0.0, "std": 1.0, **known, **fields}


def save_codec_folder(folder: pathlib.Path, codec: Codec) -> None:
    """Writes the codec alone, under the reference's tensor names; an old folder is replaced."""
    with whole_folder(folder, overwrite=True) as part:
        write_json(part / "codec.json", to_dict(codec.config))
        write_state(part / "checkpoint.safetensors", codec_table(codec.config).stored(codec))


def load_codec_folder(folder: pathlib.Path, *, mesh: Mesh | None = None) -> Codec:
    """Reads what `save_codec_folder` wrote. Raises `UserError` that names every misfit."""
    config = from_dict(CodecConfig, read_json(folder / "codec.json"))
    state = open_state(folder, "checkpoint")
    return codec_table(config).build(state, mesh)
