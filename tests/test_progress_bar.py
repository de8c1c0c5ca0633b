"""Progress on a terminal is a bar that is drawn over itself, in a log whole lines."""

import io
from collections.abc import Callable

import pytest

from sam_audio_jax.progress_bar import progress_bar


class Stream(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def stream(monkeypatch) -> Callable[[bool], Stream]:
    def as_stderr(terminal: bool) -> Stream:
        monkeypatch.setattr("sys.stderr", stream := Stream(terminal))
        return stream

    return as_stderr


def test_a_log_has_whole_lines_and_few_of_them(stream):
    stderr = stream(terminal=False)
    with progress_bar(total=1000, desc="encoding", unit="mixture") as bar:
        for number in range(1000):
            bar.update()
            if number == 499:
                bar.set_postfix_str("half of it")
    assert "\r" not in stderr.getvalue()
    assert stderr.getvalue().endswith("\n")
    lines = stderr.getvalue().splitlines()
    for line, share in zip(lines, ("  0%", " 50%", "100%"), strict=True):
        assert line.startswith(f"encoding: {share}")
    assert lines[1].endswith("half of it]")


def test_what_a_bar_clears_leaves_no_blank_lines(stream):
    stderr = stream(terminal=False)
    list(progress_bar(range(3), desc="measure", leave=False))
    assert [line[:8] for line in stderr.getvalue().splitlines()] == ["measure:"]


def test_a_bar_within_another_one_has_its_own_lines(stream):
    stderr = stream(terminal=False)
    with progress_bar(total=1, desc="training") as bar:
        list(progress_bar(range(3), desc="evaluating"))
        bar.update()
    names = [line[:5] for line in stderr.getvalue().splitlines()]
    assert names == ["train", "evalu", "evalu", "train"]
    assert "\x1b" not in stderr.getvalue()


def test_a_terminal_has_a_bar_that_is_drawn_over_itself(stream):
    stderr = stream(terminal=True)
    list(progress_bar(range(3), desc="encoding"))
    assert stderr.getvalue().count("\rencoding: ") >= 2
    assert stderr.getvalue().count("\n") == 1
