"""SAM Audio Judge: its `config.json`, the names of its tensors, its folder, ours included.

The network: docs/scoring.md, "Judge". Two layouts are published. The one that the reference's code
reads is the revision `sam_audio` of the hub: its codec is the section `audio_codec` of the config,
with weight norm. The other is that of transformers: the section is `dac_vae_encoder`, with other
keys and other names of tensors, and its convolutions are stored as they are applied.

    config.json                  the reference's keys
    model.safetensors            tensors under the reference's names
    sam_audio_jax.json           ours: format, mask_attention, tokenizer, normalizes_text (whether
                                 texts are brought to the form of our own models first; False),
                                 about (a line for reports), notes; absent in theirs
    [tokenizer files]
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sam_audio_jax.bounds import check
from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.convert.codec import FIELDS, UNUSED, encoder_rows
from sam_audio_jax.convert.folder import FORMAT, OURS, TOKENIZER_NAME, FileDtype
from sam_audio_jax.convert.model_files import (
    TOKENIZER_FILES,
    copy_tokenizer,
    find_folder,
    has_tokenizer,
    open_state,
    reading,
    shipped_folder,
    weight_files,
)
from sam_audio_jax.convert.names import LINEAR, Row, Table
from sam_audio_jax.convert.pe_a_frame import CODEC_FIELDS, TOKENIZER, wave_rows
from sam_audio_jax.convert.peav import (
    PEAV_FIELDS,
    fields_of,
    modernbert_config,
    modernbert_config_to_reference,
    modernbert_rows,
    peav_config,
    peav_rows,
    refuse_others,
    to_fields,
    without_unread,
)
from sam_audio_jax.convert.tensors import State, Stored, Tensor, write_state
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import check_format, read_object, whole_folder, write_json
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Compute
from sam_audio_jax.scorers.judge import Judge, JudgeConfig

NAME = "sam-audio-judge"
HUB = f"facebook/{NAME}"
REVISION = "sam_audio"  # of `HUB`, which the reference's code reads
PATTERNS = (
    "config.json",
    *weight_files("checkpoint"),
    *weight_files("model"),
    OURS,
    *TOKENIZER_FILES,
)
CODEC = "audio_codec"  # section of the config and first part of names, in the reference's layout
SCORING = "finetune_transformer"  # section of the config that no other network has
PLAIN_CODEC = "dac_vae_encoder"  # the same in the layout of transformers
DEAD = 1e-15  # length of a kernel's row that counts as zero; its square nears float32's smallest
CODEC_SIZES = ("sample_rate", "encoder_dim", "encoder_rates", "latent_dim")

LINEARS = {
    "data_proj": "project",
    "text_proj1": "widen_text",
    "text_proj2": "narrow_text",
    "cat_audio_proj": "join_sounds",
    "proj_audio_and_text": "join_text",
    "finetune_data_proj": "scoring_in",
    "head": "head",
}
WITHOUT_BIAS = ("text_proj1", "head")


def judge_rows(config: JudgeConfig) -> list[Row]:
    """Every tensor of a judge of this configuration, in the reference's layout."""
    rows = [Row("mean", "mean"), Row("std", "std")]
    for theirs, ours in LINEARS.items():
        rows.append(Row(f"{theirs}.weight", f"{ours}.kernel", LINEAR))
        if theirs not in WITHOUT_BIAS:
            rows.append(Row(f"{theirs}.bias", f"{ours}.bias"))
    return [
        *rows,
        Row("layer_norm.weight", "text_norm.scale"),
        Row("layer_norm.bias", "text_norm.bias"),
        *_codec_rows(len(config.encoder_rates)),
        *peav_rows("transformer.", "audio.", config.audio),
        *peav_rows("finetune_transformer.", "scoring.", config.scoring),
        *modernbert_rows("text_model.", "text.", config.text),
    ]


def _codec_rows(depth: int) -> list[Row]:
    return [
        dataclasses.replace(row, theirs=f"{CODEC}.{row.theirs}", ours=f"wave_encoder.{row.ours}")
        for row in encoder_rows(depth)
    ]


def judge_table(config: JudgeConfig) -> Table[Judge]:
    """The names of all tensors that a judge of this configuration uses."""
    return Table(
        lambda: Judge(config, rngs=Rngs(0)),
        judge_rows(config),
        0,  # each row names its own layers
        "judge checkpoint",
    )


def used(state: State, config: JudgeConfig) -> dict[str, Tensor]:
    """The tensors that a forward pass reads, in the reference's layout.

    Left out are the text layers after the last one used, the text model's final norm and the output
    projection of the codec's bottleneck. Plain convolutions of the other layout become pairs of
    weight norm, of the same kernel; there a channel whose kernel is zero is its bias.
    """
    unread = f"{CODEC}.quantizer.out_proj.", f"{PLAIN_CODEC}.bottleneck.out_proj."
    kept = without_unread(state, config.text.depth, *unread)
    if any(name.startswith(f"{PLAIN_CODEC}.") for name in kept):
        return _with_weight_norm(kept, len(config.encoder_rates))
    return kept


def _with_weight_norm(state: State, depth: int) -> dict[str, Tensor]:
    """The state with the codec's tensors under the names of the reference's layout."""
    plain = {row.ours: row.theirs for row in wave_rows(depth, f"{PLAIN_CODEC}.")}
    renamed: dict[str, Tensor] = {}
    for row in _codec_rows(depth):
        part, _, leaf = row.ours.rpartition(".")
        kernel = f"{part}.kernel"
        source = plain[kernel if leaf in ("scale", "direction") else row.ours]
        if source not in state:
            continue  # the table names what is missing
        tensor = state[source]
        if leaf == "scale":
            shape = (*tensor.shape[:1], *[1] * (len(tensor.shape) - 1))
            lengths = functools.partial(_row_lengths, tensor)
            tensor = Stored(shape, np.dtype(np.float32), lengths)
        elif leaf == "direction":
            directions = functools.partial(_directions, tensor)
            tensor = Stored(tensor.shape, np.dtype(np.float32), directions)
        renamed[row.theirs] = tensor
    rest = set(state) - set(plain.values())
    return {name: state[name] for name in state if name in rest} | renamed


def _row_lengths(kernel: Tensor) -> np.ndarray:
    values = np.asarray(kernel).astype(np.float32)
    lengths = np.sqrt(np.square(values).sum(axis=tuple(range(1, values.ndim)), keepdims=True))
    return np.where(lengths > DEAD, lengths, 0)


def _directions(kernel: Tensor) -> np.ndarray:
    """The kernel; rows of a dead channel are ones, because zeros have no direction."""
    values = np.asarray(kernel).astype(np.float32)
    return np.where(_row_lengths(values) > 0, values, 1)


def judge_config(
    values: Mapping[str, Any], *, compute: Compute = "float32", mask_attention: bool = False
) -> JudgeConfig:
    """Reads the reference's `config.json` of either layout.

    Raises `UserError` for settings that are not built here.
    """
    codec = _plain_codec(values) if PLAIN_CODEC in values else _codec(values.get(CODEC, {}))
    layers = values.get("nth_text_layer", 22)
    if layers is None:
        raise UserError(
            "config.json: nth_text_layer=null, the output of all layers, is not supported: name one"
        )
    return JudgeConfig(
        **codec,
        audio=peav_config(values.get("transformer", {}), "transformer", compute),
        scoring=peav_config(values.get(SCORING, {}), SCORING, compute),
        text=modernbert_config(values.get("text_model", {}), "text_model", layers, compute),
        bottleneck=values.get("bottleneck_dim", 256),
        mask_attention=mask_attention,
    )


def _codec(values: Mapping[str, Any]) -> dict[str, Any]:
    """The codec's sizes from the section of the reference's layout."""
    known = (*FIELDS, *UNUSED, "mean", "std")
    if unknown := sorted(set(values) - set(known)):
        raise UserError(
            f"config.json: unknown key {CODEC}.{unknown[0]}, allowed are {', '.join(known)}"
        )
    fields = {name: values.get(name, getattr(CodecConfig, name)) for name in CODEC_SIZES}
    return fields | {
        "encoder_rates": tuple(fields["encoder_rates"]),
        "channels": values.get("codebook_dim", CodecConfig.codebook_dim),
    }


def _plain_codec(values: Mapping[str, Any]) -> dict[str, Any]:
    """The codec's sizes from the section of transformers' layout."""
    if CODEC in values:
        raise UserError(f"config.json has both {CODEC} and {PLAIN_CODEC}: one of them is meant")
    section = values[PLAIN_CODEC]
    fields = fields_of(section, CODEC_FIELDS)
    width = fields["encoder_dim"] * 2 ** len(fields["encoder_rates"])
    refuse_others(section, {"codebook_size": width}, PLAIN_CODEC)
    return fields | {"encoder_rates": tuple(fields["encoder_rates"]), "latent_dim": width}


def judge_config_to_reference(config: JudgeConfig) -> dict[str, Any]:
    """The inverse of `judge_config`, in the reference's layout; the text model ends where used."""
    codec = {name: getattr(config, name) for name in CODEC_SIZES}
    return {
        CODEC: codec
        | {"encoder_rates": list(config.encoder_rates), "codebook_dim": config.channels},
        "transformer": to_fields(config.audio, PEAV_FIELDS),
        SCORING: to_fields(config.scoring, PEAV_FIELDS),
        "text_model": modernbert_config_to_reference(config.text),
        "nth_text_layer": config.text.depth,
        "bottleneck_dim": config.bottleneck,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeFolder:
    """A judge whose config and headers were read: every tensor is there and fits."""

    folder: pathlib.Path
    config: Mapping[str, Any]  # the reference's
    extra: Mapping[str, Any]  # values of sam_audio_jax.json; {} in a released one
    state: State
    table: Table[Judge]

    @property
    def tokenizer(self) -> str:
        """The name of its tokenizer, for `tokenizer_for`."""
        if has_tokenizer(self.folder):
            return str(self.folder)
        return self.extra.get("tokenizer") or TOKENIZER

    @property
    def normalizes_text(self) -> bool:
        """Whether its tokenizer normalizes texts."""
        return self.extra.get("normalizes_text", False)

    def read(self, mesh: Mesh | None = None) -> Judge:
        """Reads the tensors; with a mesh every parameter is sharded while it is read."""
        return self.table.read(used(self.state, self.table.abstract.config), mesh)


def is_released_judge(name: str) -> bool:
    """Whether a name means the released judge on the hub, in any revision."""
    return name.partition("@")[0] in (NAME, HUB) and not pathlib.Path(name).is_dir()


def open_judge(path: str | pathlib.Path, *, compute: Compute = "float32") -> JudgeFolder:
    """Reads config and headers of a judge, but no tensor.

    `path` is a folder with `config.json` and `checkpoint` or `model` (.safetensors, .pt), a Hugging
    Face id, `NAME@REVISION` of the hub, `sam-audio-judge`, or the name of a shipped one. Raises
    `UserError` when there is none or when it does not fit; one line names every misfit.
    """
    name, revision = str(path), None
    if not pathlib.Path(name).is_dir():
        name, _, named = name.partition("@")
        name = HUB if name == NAME else name
        revision = named or (REVISION if name == HUB else None)
    folder = shipped_folder(name) or find_folder(name, PATTERNS, revision=revision)
    with reading(folder):
        values, extra = read_object(folder / "config.json"), {}
        if (folder / OURS).exists():
            extra = read_object(folder / OURS)
            check_format(folder / OURS, extra, FORMAT)
        tokenizer = extra.get("tokenizer")
        if tokenizer is not None and not TOKENIZER_NAME.fullmatch(str(tokenizer)):
            raise UserError(f"{folder / OURS}: tokenizer {shown(tokenizer)} must be a name")
        masked = extra.get("mask_attention", False)
        for key, hint in (("mask_attention", bool), ("normalizes_text", bool), ("about", str)):
            if key in extra:
                check(hint, extra[key], f"{folder / OURS}: {key}")
        config = judge_config(values, compute=compute, mask_attention=masked)
        state = open_state(folder, "checkpoint", "model")
        table = judge_table(config)
        if misfits := table.misfits(used(state, config)):
            if SCORING not in values:  # another network's, of which nothing fits
                raise UserError(f"{folder} holds no judge: its config.json has no {SCORING}")
            raise UserError(f"{folder}: {table.what} does not fit its config: {'; '.join(misfits)}")
        if "tokenizer" in extra and tokenizer is None and not has_tokenizer(folder):
            raise UserError(f"{folder} lacks the files of its tokenizer ({TOKENIZER_FILES[0]})")
    return JudgeFolder(folder=folder, config=values, extra=extra, state=state, table=table)


def load_judge(
    path: str | pathlib.Path, *, compute: Compute = "float32", mesh: Mesh | None = None
) -> tuple[Judge, str]:
    """Reads a judge; returns it and the name of its tokenizer, for `tokenizer_for`.

    With a mesh every parameter is sharded while it is read. The rest is as in `open_judge`.
    """
    stored = open_judge(path, compute=compute)
    return stored.read(mesh), stored.tokenizer


def save_judge(
    path: str | pathlib.Path,
    judge: Judge,
    tokenizer: str,
    extra: Mapping[str, Any] | None = None,
    *,
    dtype: FileDtype | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a folder that `load_judge` reads, whole or not at all.

    `tokenizer` is a name, or a folder whose tokenizer files are copied; `extra` are notes for
    sam_audio_jax.json; `dtype` is that of the file ("float16" halves it). Raises `UserError` when
    `path` exists, unless it may `overwrite` it, and for values too large for `dtype`.
    """
    has_files = pathlib.Path(tokenizer).is_dir()
    ours = {
        "format": FORMAT,
        "mask_attention": judge.config.mask_attention,
        "tokenizer": None if has_files else tokenizer,
    }
    with whole_folder(pathlib.Path(path), overwrite=overwrite) as part:
        write_json(part / "config.json", judge_config_to_reference(judge.config))
        write_json(part / OURS, dict(extra or {}) | ours)
        write_state(part / "model.safetensors", judge_table(judge.config).stored(judge), dtype)
        if has_files:
            copy_tokenizer(pathlib.Path(tokenizer), part)
