"""What a model is made of and what it needs in memory: `sam-audio info MODEL`.

Lists the parts with their sizes and licences, then the peak memory of one call on this machine for
a recording of 10 s and of 10 minutes, for each dtype in which text encoder and separator can be
kept. No weight is loaded: sizes follow from the headers, peaks from the compiler's account of the
real programs, which takes up to a few minutes for a large model (--no-memory leaves them out).
"""

import argparse
import dataclasses
import functools
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

from sam_audio_jax import config
from sam_audio_jax.cli.command import command
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.load import Described, describe_model
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_writable, write_json
from sam_audio_jax.infer import inputs, memory
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.solve import Networks
from sam_audio_jax.nn.storage import STORAGES, Storage, check_storage
from sam_audio_jax.separator.flow import SamplerConfig

SECONDS = {"10 s": 10.0, "10 min": 600.0}
# What the authors of parts that are loaded on first use say of their weights.
LICENCES = {
    "imagebind": "CC BY-NC-SA 4.0: not for commercial use",
    "clap": "LAION's; the code is CC0 1.0",
    "judge": "as on the page of its checkpoint",
    "sound_activity": "no weights",
}


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="info")
    parser.add_argument("model", help="shipped name, workdir or step, folder, Hugging Face id")
    parser.add_argument(
        "--dtype", action="append", choices=STORAGES, help="peaks of this one; may be repeated"
    )
    parser.add_argument("--no-memory", action="store_true", help="parts and sizes alone")
    parser.add_argument("--json", type=pathlib.Path, help="write the peaks in bytes to this file")
    options = parser.parse_args(argv)
    for name in ("json", "dtype") if options.no_memory else ():
        if getattr(options, name):
            raise UserError(f"--{name} is for the peaks, which --no-memory leaves out: give one")
    return options


@command
def main(argv: list[str]) -> None:
    """Prints the parts, then a table of peaks."""
    options = read_options(argv)
    if options.json:
        check_writable(options.json.parent, "--json, the folder")
    name = inputs.check_checkpoint(options.model)
    described = {"float32": describe_model(name)}
    for line in part_lines(name, described["float32"]):
        print(line)
    if options.no_memory:
        return
    peaks: dict[str, dict[str, dict[str, int]]] = {}
    print(
        "\npeak memory of one call, in MB: weights + program + recording + process; where reading "
        "the weights takes more than that, reading + process"
    )
    print(f"  {'dtype':<9}" + "".join(f"{length:>44}" for length in SECONDS))
    for storage in _storages(options.dtype):
        peaks[storage] = peaks_of(describe_model(name, storage))
        cells = "".join(f"{_cell(peaks[storage][length]):>44}" for length in SECONDS)
        print(f"  {storage:<9}{cells}", flush=True)
    if options.json:
        write_json(options.json, peaks)


def _storages(chosen: Sequence[Storage] | None) -> Iterator[Storage]:
    """The dtypes to account for; int8 only where Qwix is, unless it was asked for."""
    for storage in chosen or STORAGES:
        try:
            check_storage(storage, on_mesh=False)
        except UserError as error:
            if chosen:
                raise
            print(f"note: {error}", file=sys.stderr)
            continue
        yield storage


def part_lines(name: str, model: Described) -> list[str]:
    """A line for each part: parameters, bytes in each dtype, licence, when it is loaded."""
    licence = _licence(model.folder)
    separate = {
        "codec": model.codec,
        "text encoder": model.prompted.text_encoder,
        "separator": model.prompted.separator,
    }
    lines = [f"{name}: {licence}", f"  {'part':<16}{'parameters':>14}  loaded"]
    for part, network in separate.items():
        count = memory.weight_bytes(network) // 4
        lines.append(f"  {part:<16}{count:>14,}  always")
    if model.tower:
        lines.append(f"  {'vision tower':<16}{model.tower:>14,}  by the first video")
    if model.audio_tower:
        lines.append(f"  {'audio tower':<16}{model.audio_tower:>14,}  by the first example")
    predictor = model.upstream.get("span_predictor")
    if predictor:
        lines.append(f"  {'span predictor':<16}{'':>14}  by the first --predict-spans: {predictor}")
    for kind, where in _rankers(model.upstream):
        text = f"by the first --candidates: {where}; {LICENCES[kind]}"
        lines.append(f"  {kind:<16}{'':>14}  {text}")
    return lines


def _rankers(upstream: dict) -> Iterator[tuple[str, str]]:
    """The kinds of rankers in a config, each with the kind of prompt that it ranks."""
    for key in ("text_ranker", "visual_ranker"):
        rankers = [upstream.get(key)]
        while rankers:
            ranker = rankers.pop()
            if not isinstance(ranker, dict):
                continue
            if ranker.get("kind") == "ensemble":
                rankers += [member[0] for member in ranker.get("rankers", {}).values()]
            elif ranker.get("kind") in LICENCES:
                yield ranker["kind"], key


def _licence(folder: pathlib.Path) -> str:
    """The licence that the model card in a folder names."""
    card = folder / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    found = re.search(r"^(?:\| *)?licen[cs]e(?: *\||:) *([^|\n]+)", text, re.MULTILINE | re.I)
    return f"licence {found[1].strip()}" if found else "no licence is named in its folder"


def peaks_of(model: Described) -> dict[str, dict[str, int]]:
    """The fields of `Peak` and its total, in bytes, for each length."""
    networks = Networks(model.codec, model.prompted.text_encoder, model.prompted.separator)
    sampler = from_dict(SamplerConfig, model.sampler)
    account = functools.partial(memory.peak_of_call, networks, read_whole=model.read_whole)
    peaks = {key: account(s, sampler, LongAudioConfig()) for key, s in SECONDS.items()}
    return {key: {**dataclasses.asdict(peak), "total": peak.total} for key, peak in peaks.items()}


def _cell(peak: dict[str, int]) -> str:
    keys = ("weights", "program", "waves", "process")
    if peak["total"] == peak["reading"] + peak["process"]:
        keys = ("reading", "process")
    parts = [peak[key] for key in keys]
    sums = " + ".join(f"{part / 1e6:,.0f}" for part in parts)
    return f"{peak['total'] / 1e6:,.0f} = {sums}"
