"""A folder of exported programs: written, compared with the model, described in `export.json`."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.convert.tensors import Stored, write_state
from sam_audio_jax.encoders.tokenizer import MAX_TOKENS, PretrainedTokenizer, tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.export import onnx_models, stablehlo
from sam_audio_jax.export.networks import CHECKED_SIZES, ExportedProgram, programs_of
from sam_audio_jax.export.solver_steps import solver_steps
from sam_audio_jax.files import sha256_of, whole_folder, write_json
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.prompts import ANCHOR_IDS

Form = Literal["stablehlo", "onnx"]
FORMAT = 1  # of export.json
MOST_DIFFERENCE = 1e-4  # of a program from its network, relative to the largest number
DESCRIPTION, WEIGHTS, TOKENIZER = "export.json", "weights.safetensors", "tokenizer.json"


def export_model(
    name: str,
    folder: pathlib.Path,
    form: Form,
    *,
    seconds: float,
    tokens: int,
    report: Callable[[str], None],
) -> None:
    """Writes a model's programs into a new folder, whole or not at all.

    `seconds` and `tokens` are the sizes of a velocity in ONNX, whose sizes are fixed. Each program
    is run on random inputs; `report` gets a line with how far it is from its network. Raises
    `UserError` where that is above `MOST_DIFFERENCE`, for a model that multiplies in bfloat16, and
    as `load_networks`.
    """
    (stablehlo if form == "stablehlo" else onnx_models).require()
    codec, prompted, tokenizer_name, extra = load_networks(name)
    _check_float32(name, prompted)
    tokenizer = tokenizer_for(tokenizer_name)
    sampler = from_dict(SamplerConfig, extra.get("sampler", {}))
    programs = programs_of(codec, prompted)
    fixed = {"batch": 1, "frames": codec.config.frames(round(seconds * codec.config.sample_rate))}
    most = prompted.separator.config.dit.max_positions
    if form == "onnx" and not 1 <= fixed["frames"] <= most:
        raise UserError(
            f"--seconds {seconds:g} are {fixed['frames']} frames of {name}, which reads 1 to {most}"
        )
    with whole_folder(folder) as part:
        if form == "stablehlo":
            written = [_write_stablehlo(program, part) for program in programs]
            write_state(part / WEIGHTS, _stored(programs))
        else:
            fixed["tokens"] = tokens
            written = [
                _write_onnx(program, part, fixed if program.name == "velocity" else {})
                for program in programs
            ]
        for entry in written:
            report(f"{entry['file']}: differs from the model by {entry['difference']:.1e}")
        description = {
            "format": FORMAT,
            "form": form,
            "jax": jax.__version__,
            "sample_rate": codec.config.sample_rate,
            "hop": codec.config.hop,
            "level_db": extra.get("level_db"),
            "normalizes_text": extra.get("normalizes_text", False),
            "tokenizer": _write_tokenizer(tokenizer, part),
            "anchors": ANCHOR_IDS,
            "sampler": {
                "method": sampler.method,
                "steps": sampler.steps,
                "solver_steps": solver_steps(sampler),
            },
            "programs": {p.name: entry for p, entry in zip(programs, written, strict=True)},
            "files": {path.name: _checksum(path) for path in sorted(part.iterdir())},
        }
        write_json(part / DESCRIPTION, description)


def _check_float32(name: str, prompted: PromptedSeparator) -> None:
    dtypes = (prompted.text_encoder.config.dtype, prompted.separator.config.dit.dtype)
    if "bfloat16" in dtypes:
        raise UserError(
            f"{name} multiplies in bfloat16, and exports are float32: write it as a folder first "
            f"(sam-audio convert --from {name} --to FOLDER) and export that"
        )


def _write_stablehlo(program: ExportedProgram, folder: pathlib.Path) -> dict[str, Any]:
    path = folder / f"{program.name}{stablehlo.SUFFIX}"
    stablehlo.write(program, path)
    inputs = program.draw_inputs(CHECKED_SIZES)
    result = stablehlo.run(program, path, inputs)
    entry = _entry(program, path, {}, _difference(program, inputs, result))
    return entry | {"platforms": list(stablehlo.PLATFORMS), "weights": f"{program.name}."}


def _write_onnx(
    program: ExportedProgram, folder: pathlib.Path, fixed: Mapping[str, int]
) -> dict[str, Any]:
    path = folder / f"{program.name}{onnx_models.SUFFIX}"
    onnx_models.write(program, path, fixed)
    inputs = program.draw_inputs({**CHECKED_SIZES, **fixed})
    return _entry(program, path, fixed, _difference(program, inputs, onnx_models.run(path, inputs)))


def _entry(
    program: ExportedProgram, path: pathlib.Path, fixed: Mapping[str, int], difference: float
) -> dict[str, Any]:
    def described(arguments: Iterable[Any]) -> list[dict[str, Any]]:
        return [one.to_json() | {"shape": list(one.with_sizes(fixed))} for one in arguments]

    return {
        "file": path.name,
        "inputs": described(program.inputs),
        "output": described([program.output])[0],
        "most_frames": program.most_frames,
        "difference": difference,
    }


def _difference(
    program: ExportedProgram, inputs: Mapping[str, np.ndarray], result: np.ndarray
) -> float:
    """How far a result is from the network's own, relative to its largest number."""
    wanted = np.asarray(Compiled(program.network)(program.call, *inputs.values()))
    error = np.abs(result - wanted).max() if result.shape == wanted.shape else np.inf
    difference = float(error / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))
    if not difference <= MOST_DIFFERENCE:
        raise UserError(
            f"the exported {program.name} differs from the model by {difference:.1e} of its "
            f"largest number, at most {MOST_DIFFERENCE} is allowed: nothing is written"
        )
    return difference


def _stored(programs: Iterable[ExportedProgram]) -> dict[str, Stored]:
    """All weights under `program.path`; each is brought to the host when it is written."""
    return {
        f"{program.name}.{path}": Stored(value.shape, value.dtype, lambda v=value: np.asarray(v))
        for program in programs
        for path, value in program.weights.items()
    }


def _write_tokenizer(tokenizer: PretrainedTokenizer, folder: pathlib.Path) -> dict[str, Any]:
    """What turns a text into ids: bytes, or a file of the package tokenizers."""
    pretrained = tokenizer.pretrained
    if type(pretrained).__name__ == "ByT5Tokenizer":
        end = pretrained.eos_token_id
        return {"kind": "bytes", "offset": pretrained.offset, "end": end, "most": MAX_TOKENS}
    backend = getattr(pretrained, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"the tokenizer {type(pretrained).__name__} has no form to export")
    backend.save(str(folder / TOKENIZER))
    return {"kind": "tokenizers", "file": TOKENIZER, "most": MAX_TOKENS}


def _checksum(path: pathlib.Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
