"""LAION's CLAP: the names of its tensors and its published files (docs/scoring.md, "CLAP").

Two layouts are published: LAION's own, a pickle with the tensors under `state_dict`, each named
`module.` and more, and that of transformers' `ClapModel`. Both have the same tensors, except that
LAION's has queries, keys and values of the audio tower in one.
"""

import dataclasses
import pathlib
import re

from jax.sharding import Mesh

from sam_audio_jax.convert.filter_bank import check_filter_bank
from sam_audio_jax.convert.names import LINEAR, Row, Table, TensorLayout, batch_norm_rows
from sam_audio_jax.convert.tensors import State, Tensor, open_safetensors, open_torch
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.clap import Clap, ClapConfig

MODEL_KEY = "state_dict"  # of the tensors in LAION's file
WRAPPED = "module."  # before each name there
FILTERS = "audio_branch.logmel_extractor.melW"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """The words in which two layouts differ."""

    text: str
    audio: str
    batch_norm: str
    block_norms: tuple[str, str]  # before the attention, before the feed-forward
    query_key_value: tuple[str, str, str]
    position_bias: str
    attention_out: str
    mlp: tuple[str, str]
    projection: tuple[str, str]
    unused: tuple[str, ...]  # patterns of whole names


# Counters and indices of training and of the code, and the scales of the loss.
NEVER_USED = (
    r"logit_scale_[at]",
    r".*\.num_batches_tracked",
    r".*\.relative_position_index",
    r".*\.position_ids",
)
LAION = Names(
    text="text_branch",
    audio="audio_branch",
    batch_norm="bn0",
    block_norms=("norm1", "norm2"),
    query_key_value=("attn.qkv", "attn.qkv", "attn.qkv"),
    position_bias="attn.relative_position_bias_table",
    attention_out="attn.proj",
    mlp=("mlp.fc1", "mlp.fc2"),
    projection=("0", "2"),
    # The classifier of AudioSet, the perceptrons of an auxiliary loss, constants of the front end.
    unused=(
        *NEVER_USED,
        r"audio_branch\.(tscam_conv|head)\..*",
        r"(audio|text)_transform\..*",
        r"audio_branch\.(spectrogram|logmel)_extractor\..*",
        r".*\.attn_mask",
    ),
)
TRANSFORMERS = Names(
    text="text_model",
    audio="audio_model.audio_encoder",
    batch_norm="batch_norm",
    block_norms=("layernorm_before", "layernorm_after"),
    query_key_value=("attention.self.query", "attention.self.key", "attention.self.value"),
    position_bias="attention.self.relative_position_bias_table",
    attention_out="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
    projection=("linear1", "linear2"),
    unused=(*NEVER_USED, r".*\.token_type_ids"),
)


def _dense(theirs: str, ours: str, layers: range | None = None) -> list[Row]:
    return [
        Row(f"{theirs}.weight", f"{ours}.kernel", LINEAR, layers),
        Row(f"{theirs}.bias", f"{ours}.bias", layers=layers),
    ]


def _norm(theirs: str, ours: str, layers: range | None = None) -> list[Row]:
    return [
        Row(f"{theirs}.weight", f"{ours}.scale", layers=layers),
        Row(f"{theirs}.bias", f"{ours}.bias", layers=layers),
    ]


def _patches(side: int) -> TensorLayout:
    """A convolution with stride = window, `[out, 1, rows, columns]` <-> `[pixels, out]`."""
    return TensorLayout(
        lambda w: w.reshape(w.shape[0], -1).T, lambda w: w.T.reshape(-1, 1, side, side)
    )


def _stage_rows(config: ClapConfig, names: Names, stage: int) -> list[Row]:
    layers = range(config.audio.depths[stage])
    theirs, ours = f"{names.audio}.layers.{stage}", f"audio.stages.{stage}"
    block = f"{theirs}.blocks.{{layer}}"
    rows = [
        row
        for name, part in zip(names.query_key_value, ("query", "key", "value"), strict=True)
        for row in _dense(f"{block}.{name}", f"{ours}.attention.{part}", layers)
    ]
    rows += _dense(f"{block}.{names.attention_out}", f"{ours}.attention.out", layers)
    rows.append(Row(f"{block}.{names.position_bias}", f"{ours}.position_bias", layers=layers))
    for name, part in zip(names.block_norms, ("attention_norm", "mlp_norm"), strict=True):
        rows += _norm(f"{block}.{name}", f"{ours}.{part}", layers)
    for name, part in zip(names.mlp, ("up", "down"), strict=True):
        rows += _dense(f"{block}.{name}", f"{ours}.mlp.{part}", layers)
    if stage < len(config.audio.depths) - 1:
        rows += _norm(f"{theirs}.downsample.norm", f"audio.merges.{stage}.norm")
        reduction = f"{theirs}.downsample.reduction.weight"
        rows.append(Row(reduction, f"audio.merges.{stage}.reduce.kernel", LINEAR))
    return rows


def _audio_rows(config: ClapConfig, names: Names) -> list[Row]:
    patches = _patches(config.audio.patch)
    rows = [
        *batch_norm_rows(f"{names.audio}.{names.batch_norm}", "audio.norm_in"),
        Row(f"{names.audio}.patch_embed.proj.weight", "audio.patches.kernel", patches),
        Row(f"{names.audio}.patch_embed.proj.bias", "audio.patches.bias"),
        *_norm(f"{names.audio}.patch_embed.norm", "audio.patch_norm"),
        *_norm(f"{names.audio}.norm", "audio.norm_out"),
    ]
    for stage in range(len(config.audio.depths)):
        rows += _stage_rows(config, names, stage)
    return rows


def _text_rows(config: ClapConfig, names: Names) -> list[Row]:
    embeddings, layers = f"{names.text}.embeddings", range(config.text.depth)
    layer, block = f"{names.text}.encoder.layer.{{layer}}", "text.blocks"
    rows = [
        Row(f"{embeddings}.word_embeddings.weight", "text.words"),
        Row(f"{embeddings}.position_embeddings.weight", "text.positions"),
        Row(f"{embeddings}.token_type_embeddings.weight", "text.token_type"),
        *_norm(f"{embeddings}.LayerNorm", "text.embed_norm"),
        *_dense(f"{names.text}.pooler.dense", "text.pool"),
    ]
    for part in ("query", "key", "value"):
        rows += _dense(f"{layer}.attention.self.{part}", f"{block}.attention.{part}", layers)
    rows += _dense(f"{layer}.attention.output.dense", f"{block}.attention.out", layers)
    rows += _norm(f"{layer}.attention.output.LayerNorm", f"{block}.attention_norm", layers)
    rows += _dense(f"{layer}.intermediate.dense", f"{block}.mlp.up", layers)
    rows += _dense(f"{layer}.output.dense", f"{block}.mlp.down", layers)
    return rows + _norm(f"{layer}.output.LayerNorm", f"{block}.mlp_norm", layers)


def clap_rows(config: ClapConfig, names: Names = LAION) -> list[Row]:
    """Every parameter of a network of this configuration."""
    rows = _audio_rows(config, names) + _text_rows(config, names)
    for tower in ("audio", "text"):
        for name, part in zip(names.projection, ("up", "down"), strict=True):
            rows += _dense(f"{tower}_projection.{name}", f"{tower}_projection.{part}")
    return rows


def clap_table(config: ClapConfig, names: Names = LAION) -> Table[Clap]:
    """The names of all tensors of a network of this configuration."""
    rows = clap_rows(config, names)
    return Table(lambda: Clap(config, rngs=Rngs(0)), rows, 0, "CLAP checkpoint")


def layout_of(state: State) -> Names:
    """The layout in which a state dict is, LAION's if it is in none."""
    return TRANSFORMERS if any(name.startswith(TRANSFORMERS.audio) for name in state) else LAION


def used(state: State, names: Names) -> dict[str, Tensor]:
    """The tensors without those that no embedding depends on."""
    unused = re.compile("|".join(names.unused))
    return {name: tensor for name, tensor in state.items() if not unused.fullmatch(name)}


def clap_from_reference(
    state: State, config: ClapConfig, mesh: Mesh | None = None, *, prefix: str = ""
) -> Clap:
    """Builds the network of the tensors whose names begin with `prefix`, in either layout.

    `module.` before any of the rest of a name is left out. Raises `UserError` for tensors or a
    filter bank that do not fit.
    """
    state = _unwrapped(_below(state, prefix))
    check_filter_bank(
        state,
        FILTERS,
        what="CLAP",
        sample_rate=config.sample_rate,
        window=config.window,
        mels=config.audio.mels,
        low_hz=config.low_hz,
        high_hz=config.high_hz,
    )
    names = layout_of(state)
    return clap_table(config, names).build(used(state, names), mesh)


def _below(state: State, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _unwrapped(state: State) -> dict[str, Tensor]:
    """The tensors, `WRAPPED` left out of their names. Raises `UserError` where two are one then."""
    bare = {name.removeprefix(WRAPPED): tensor for name, tensor in state.items()}
    if len(bare) < len(state):
        twice = next(name for name in bare if name in state and WRAPPED + name in state)
        raise UserError(f"the CLAP checkpoint has both {twice} and {WRAPPED}{twice}")
    return bare


def load_clap(name: str, config: ClapConfig | None = None, mesh: Mesh | None = None) -> Clap:
    """Reads LAION's file, `630k-best.pt`, or a `.safetensors` file in either layout.

    Raises `UserError` when there is no such file or when it does not fit, by default the published
    sizes.
    """
    path = pathlib.Path(name)
    if not path.is_file():
        raise UserError(f"no CLAP checkpoint at {path}")
    pickled = path.suffix != ".safetensors"
    state = open_torch(path, MODEL_KEY) if pickled else open_safetensors(path)
    return clap_from_reference(state, config or ClapConfig(), mesh)
