"""Writers of a run: metrics.jsonl, TensorBoard events, a progress bar on stderr."""

import contextlib
import json
import pathlib
import sys
import types

import jax
import tensorboardX

from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_jsonl
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.workdir import Workdir


class MetricWriter:
    """Writes on process 0; on the others it does nothing. Use as a context manager.

    Lines beyond step `start`, which an earlier process wrote after its last checkpoint, are
    dropped. `steps` is the end of the progress bar.
    """

    def __init__(self, workdir: Workdir, *, start: int, steps: int):
        self._first = jax.process_index() == 0
        if not self._first:
            return
        self._lines = workdir.metrics_file
        kept = [line for line in workdir.read_metrics() if line["step"] <= start]
        damaged = _line_count(self._lines) - len(workdir.read_metrics())
        write_jsonl(self._lines, kept)
        self._board = tensorboardX.SummaryWriter(
            str(workdir.events), purge_step=start + 1, flush_secs=30
        )
        self._bar = progress_bar(
            initial=start,
            total=steps,
            bar_format="{desc}{n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}",
        )

        if damaged:
            self.print(f"warning: {damaged} damaged lines of {self._lines} are left out")

    def __enter__(self) -> "MetricWriter":
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
        """Moves the bar by one step and shows `text` behind it."""
        if self._first:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def show(self, text: str) -> None:
        """Shows `text` behind the bar at once, before the step is done."""
        if self._first:
            self._bar.set_postfix_str(text)

    def print(self, text: str) -> None:
        """Prints lines to stderr above the bar."""
        if self._first:
            self._bar.write(text, file=sys.stderr)

    def write(self, step: int, values: dict[str, float], *, group: str = "train") -> None:
        """Writes one line of metrics.jsonl and the same numbers to TensorBoard.

        Raises `UserError` when the file cannot be written, as on a full disk.
        """
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


def _line_count(path: pathlib.Path) -> int:
    """Lines of a file that are not blank; 0 without a file."""
    try:
        with path.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except FileNotFoundError:
        return 0
