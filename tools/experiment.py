"""What the tools that run several commands of `sam-audio` share: the folder, and the runs."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.file_stamps import contents_of
from sam_audio_jax.eval.suite import contents_of_bench
from sam_audio_jax.files import read_object, write_json
from sam_audio_jax.workdir import Workdir


def claim(out: pathlib.Path, file_name: str, options: Mapping[str, Any]) -> None:
    """Writes the options of an experiment into its folder; every call for it must share them.

    Raises UserError for a folder of another experiment, and for one that holds other files.
    """
    options = json.loads(json.dumps(options, default=str))
    file = out / file_name
    if file.is_file() and (saved := read_object(file)) != options:
        changed = [name for name in options if saved.get(name) != options[name]]
        raise UserError(f"{out} is of another experiment: {', '.join(changed)} differ")
    if out.exists() and not file.is_file() and any(out.iterdir()):
        raise UserError(f"{out} holds other files: give the path of a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, options)


def run(arguments: Sequence[str]) -> None:
    """Runs a command of `sam-audio`. Raises UserError if it fails; it says why on stderr."""
    print("sam-audio " + " ".join(arguments), file=sys.stderr, flush=True)
    status = subprocess.run([sys.executable, "-m", "sam_audio_jax.cli", *arguments]).returncode
    if status:
        raise UserError(f"sam-audio {arguments[0]} ended with status {status}")


def prepare(name: str, folder: pathlib.Path, items: int, seed: int, flags: Sequence[str]) -> None:
    """Makes the latent cache of a config in a folder; nothing if it is there."""
    if not (folder / "cache.json").is_file():
        fixed = ["--out", str(folder), "--items", str(items), "--data.seed", str(seed)]
        run(["prepare", name, *fixed, *flags])


def train(name: str, workdir: pathlib.Path, steps: int, flags: Sequence[str]) -> None:
    """Trains a config in a workdir up to `steps`, from where it was stopped.

    Raises UserError if the training was stopped by a signal: it saves and ends with status 0.
    """
    if steps not in Workdir(workdir).steps():
        fixed = ["--steps", str(steps), "--eval-bench", "", "--max-minutes", "0"]
        run(["train", name, "--workdir", str(workdir), *fixed, *flags])
        if steps not in (kept := Workdir(workdir).steps()):
            last = max(kept, default=0)
            raise UserError(f"{workdir} is at step {last} of {steps}: the same call goes on")


def evaluate(
    checkpoint: pathlib.Path,
    bench: str,
    out: pathlib.Path,
    prompts: Sequence[str],
    *,
    limit: int | None,
    flags: Sequence[str] = (),
) -> None:
    """Evaluates a checkpoint on held-out mixtures into a folder; nothing if it is there.

    Raises UserError where what is there is of another list of mixtures or of other scorers under
    the same names, so that the evaluations of an experiment go with each other.
    """
    named = [flag.partition("=")[2] for flag in flags if "=" in flag]
    contents = {"bench": contents_of_bench(bench, limit)}
    contents |= {f"scorer {path}": contents_of(path) for path in named}
    kept = out.with_name(f".{out.name}.contents.json")
    if (out / "results.json").is_file():
        if not kept.is_file():
            print(f"warning: {out} is taken for one of the mixtures of now", file=sys.stderr)
            write_json(kept, contents)
        saved = read_object(kept)
        if others := [name for name in contents if saved.get(name) != contents[name]]:
            raise UserError(
                f"{out} was measured with another {', '.join(others)} than is there now: delete it "
                "to have it measured again"
            )
        return
    write_json(kept, contents)
    arguments = ["--checkpoint", str(checkpoint), "--bench", bench, "--out", str(out)]
    arguments += ["--prompts", *prompts, "--listen", "0"]
    arguments += [] if limit is None else ["--limit", str(limit)]
    run(["evaluate", *arguments, *flags])
