"""What a run tells the world: metrics.jsonl, TensorBoard events, a progress bar on stderr."""

import contextlib
import json
import os
import pathlib
import sys
import types
from typing import Any

import jax
import tensorboardX
import tqdm

from sam_audio_jax.errors import UserError


class Metrics:
    """Writers of process 0; the others write nothing. Use as a context manager."""

    def __init__(self, workdir: pathlib.Path, *, start: int, steps: int):
        self._first = jax.process_index() == 0
        if not self._first:
            return
        self._lines = workdir / "metrics.jsonl"
        _truncate(self._lines, start)
        self._board = tensorboardX.SummaryWriter(
            str(workdir / "events"), purge_step=start + 1, flush_secs=30
        )
        self._bar = tqdm.tqdm(
            initial=start,
            total=steps,
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            bar_format="{desc}{n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}",
        )

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if not self._first:
            return
        # On a full disk closing fails too, which must not hide what ended the run.
        with contextlib.nullcontext() if error is None else contextlib.suppress(OSError):
            self._bar.close()
            self._board.close()

    def advance(self, text: str) -> None:
        """One step more; `text` stands behind the bar."""
        if self._first:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def show(self, text: str) -> None:
        """`text` stands behind the bar at once, before the step that it is about is done."""
        if self._first:
            self._bar.set_postfix_str(text)

    def say(self, text: str) -> None:
        """A line on stderr that does not tear the bar."""
        if self._first:
            self._bar.write(text, file=sys.stderr)

    def write(self, step: int, values: dict[str, float], *, group: str = "train") -> None:
        """One line of metrics.jsonl and the same numbers to TensorBoard. UserError: disk full."""
        if not self._first:
            return
        line = json.dumps({"step": step, "group": group, **values})
        try:
            with self._lines.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{self._lines} cannot be written: {error.strerror}") from None
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)


def read_lines(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut short by a kill is left out."""
    file = pathlib.Path(workdir) / "metrics.jsonl"
    if not file.is_file():
        return []
    lines = file.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _truncate(file: pathlib.Path, step: int) -> None:
    """Drops what an earlier process wrote beyond the step that this one continues from."""
    kept = [line for line in read_lines(file.parent) if line["step"] <= step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    partial.replace(file)
