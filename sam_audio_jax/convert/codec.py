"""Reference names of the codec's tensors (spec/codec.md, sections 1 to 5 and 8).

A table row is (reference name, path in our module, kind); the kind says how the stored shapes
differ. Names are without the checkpoint's `audio_codec.` prefix.
"""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
from flax import nnx

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.errors import UserError

Row = tuple[str, str, str]
TO_OURS = {
    "vector": lambda w: w.reshape(-1),
    "conv": lambda w: w.transpose(2, 1, 0),  # (out, in, window)
    "transposed": lambda w: w.transpose(2, 0, 1),  # (in, out, window)
    "matrix": lambda w: w.T,
    "table": lambda w: w,
}
TO_REFERENCE = {
    "vector": lambda w: w,
    "gain": lambda w: w.reshape(-1, 1, 1),
    "alpha": lambda w: w.reshape(1, -1, 1),
    "conv": lambda w: w.transpose(2, 1, 0),
    "transposed": lambda w: w.transpose(1, 2, 0),
    "matrix": lambda w: w.T,
    "table": lambda w: w,
}
TO_OURS |= {"gain": TO_OURS["vector"], "alpha": TO_OURS["vector"]}


def _normed(theirs: str, ours: str, kind: str = "conv") -> Iterator[Row]:
    yield f"{theirs}.weight_g", f"{ours}.scale", "gain"
    yield f"{theirs}.weight_v", f"{ours}.direction", kind
    yield f"{theirs}.bias", f"{ours}.bias", "vector"


def _plain(theirs: str, ours: str, kind: str = "conv") -> Iterator[Row]:
    yield f"{theirs}.weight", f"{ours}.kernel", kind
    yield f"{theirs}.bias", f"{ours}.bias", "vector"


def _residual(theirs: str, ours: str) -> Iterator[Row]:
    yield f"{theirs}.block.0.alpha", f"{ours}.snake_in.alpha", "alpha"
    yield from _normed(f"{theirs}.block.1", f"{ours}.dilated")
    yield f"{theirs}.block.2.alpha", f"{ours}.snake_out.alpha", "alpha"
    yield from _normed(f"{theirs}.block.3", f"{ours}.pointwise")


def _encoder(depth: int) -> Iterator[Row]:
    yield from _normed("encoder.block.0", "encoder.stem")
    for i in range(depth):
        theirs, ours = f"encoder.block.{i + 1}", f"encoder.blocks.{i}"
        for j in range(3):
            yield from _residual(f"{theirs}.block.{j}", f"{ours}.units.{j}")
        yield f"{theirs}.block.3.alpha", f"{ours}.snake.alpha", "alpha"
        yield from _normed(f"{theirs}.block.4", f"{ours}.down")
    yield f"encoder.block.{depth + 1}.alpha", "encoder.snake.alpha", "alpha"
    yield from _normed(f"encoder.block.{depth + 2}", "encoder.out")
    yield from _normed("quantizer.in_proj", "in_proj")
    yield from _normed("quantizer.out_proj", "out_proj")


def _decoder(depth: int) -> Iterator[Row]:
    yield from _normed("decoder.model.0", "decoder.stem")
    for i in range(depth):
        theirs, ours = f"decoder.model.{i + 1}.block", f"decoder.blocks.{i}"
        yield f"{theirs}.0.alpha", f"{ours}.snake.alpha", "alpha"
        yield from _normed(f"{theirs}.1", f"{ours}.up", "transposed")
        for slot, j in ((4, 0), (5, 1), (8, 2)):
            yield from _residual(f"{theirs}.{slot}", f"{ours}.units.{j}")
    # The clean decoder's own tail lies under the watermark's name in the reference.
    tail = "decoder.wm_model.encoder_block.pre"
    yield f"{tail}.0.alpha", "decoder.snake.alpha", "alpha"
    yield from _normed(f"{tail}.1", "decoder.out")


def _elu_unit(theirs: str, ours: str) -> Iterator[Row]:
    yield from _plain(f"{theirs}.block.1", f"{ours}.squeeze")
    yield from _plain(f"{theirs}.block.3", f"{ours}.expand")


def _lstm(theirs: str, ours: str, depth: int) -> Iterator[Row]:
    for k in range(depth):
        yield f"{theirs}.weight_ih_l{k}", f"{ours}.layers.{k}.input", "matrix"
        yield f"{theirs}.weight_hh_l{k}", f"{ours}.layers.{k}.hidden", "matrix"
        yield f"{theirs}.bias_ih_l{k}", f"{ours}.layers.{k}.input_bias", "vector"
        yield f"{theirs}.bias_hh_l{k}", f"{ours}.layers.{k}.hidden_bias", "vector"


def _watermark(depth: int, lstm_depth: int) -> Iterator[Row]:
    mark = "decoder.wm_model"
    yield from _plain(f"{mark}.encoder_block.pre.3", "watermark.stem")
    for i in range(depth):  # decoder block i + 1 holds both mirrored stages of its width
        theirs = f"decoder.model.{i + 1}.block"
        down, up = f"watermark.down.{depth - 1 - i}", f"watermark.up.{i}"
        yield from _elu_unit(f"{theirs}.7", f"{down}.unit")
        yield from _plain(f"{theirs}.11", f"{down}.conv")
        yield from _plain(f"{theirs}.3", up, "transposed")
        yield from _elu_unit(f"{theirs}.6", f"{up}.unit")
    yield from _lstm(f"{mark}.encoder_block.post.0.lstm", "watermark.lstm_down", lstm_depth)
    yield from _plain(f"{mark}.encoder_block.post.2", "watermark.to_code")
    yield f"{mark}.msg_processor.msg_processor.weight", "watermark.message", "table"
    yield from _plain(f"{mark}.decoder_block.pre.0", "watermark.from_code")
    yield from _lstm(f"{mark}.decoder_block.pre.1.lstm", "watermark.lstm_up", lstm_depth)
    yield from _plain(f"{mark}.decoder_block.post.1", "watermark.out")


def codec_rows(config: CodecConfig) -> list[Row]:
    """Every tensor of a codec of this configuration."""
    rows = [*_encoder(len(config.encoder_rates)), *_decoder(len(config.decoder_rates))]
    if config.watermark_rates:
        rows += _watermark(len(config.decoder_rates), config.watermark_lstm_depth)
    return rows


def watermark_settings(state: Mapping[str, np.ndarray], depth: int) -> dict:
    """What upstream hard-codes about the mark, read off tensor shapes; {} for no mark."""
    last = f"decoder.model.{depth}.block.3.weight"
    if last not in state:
        return {"watermark_rates": ()}
    table = state["decoder.wm_model.msg_processor.msg_processor.weight"]
    rates = [state[f"decoder.model.{i + 1}.block.3.weight"].shape[2] // 2 for i in range(depth)]
    lstm = "decoder.wm_model.decoder_block.pre.1.lstm.weight_ih_l"
    return {
        "watermark_rates": tuple(rates),
        "watermark_code": table.shape[1],
        "watermark_bits": table.shape[0] // 2,
        "watermark_lstm_depth": sum(name.startswith(lstm) for name in state),
    }


def _paths(model: nnx.Module) -> dict[str, nnx.Variable]:
    return {
        ".".join(str(part) for part in path): variable
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }


def codec_from_reference(state: Mapping[str, np.ndarray], config: CodecConfig) -> Codec:
    """Builds the codec from tensors under reference names (without `audio_codec.`).

    Raises:
      UserError: naming every missing, unexpected or mis-shaped tensor.
    """
    model = nnx.eval_shape(lambda: Codec(config, rngs=nnx.Rngs(0)))
    wanted = _paths(model)
    rows = codec_rows(config)
    wrong = [f"missing {theirs}" for theirs, _, _ in rows if theirs not in state]
    wrong += [f"unexpected {name}" for name in sorted(set(state) - {row[0] for row in rows})]
    loaded = {}
    for theirs, ours, kind in rows:
        if theirs not in state:
            continue
        value = TO_OURS[kind](np.asarray(state[theirs], np.float32))
        if value.shape != wanted[ours].shape:
            wrong.append(f"{theirs} has shape {state[theirs].shape}, which does not fit {ours}")
        loaded[ours] = value
    if wrong:
        raise UserError("codec checkpoint does not fit its config: " + "; ".join(wrong))
    graph, abstract = nnx.split(model)
    flat = [
        (path, variable.replace(jax.numpy.asarray(loaded[".".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(abstract)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def codec_to_reference(codec: Codec) -> dict[str, np.ndarray]:
    """The inverse: tensors under reference names, in the reference's shapes."""
    values = _paths(codec)
    return {
        theirs: np.ascontiguousarray(TO_REFERENCE[kind](np.asarray(values[ours][...])))
        for theirs, ours, kind in codec_rows(codec.config)
    }
