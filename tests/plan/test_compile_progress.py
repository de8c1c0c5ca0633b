"""Lines of progress on a terminal and elsewhere."""

import io
import time

import pytest

from sam_audio_jax.plan import compile_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_there_are_lines_at_start_and_end_only():
    stream = io.StringIO()
    with compile_progress.working("compiling 1 of 2", 125.0, stream, tick_s=0.001):
        time.sleep(0.02)
    first, last = stream.getvalue().splitlines()
    assert first == "compiling 1 of 2: about 2:05 min on two cores"
    assert last == "  took 0 s"


def test_a_terminal_shows_the_elapsed_time_meanwhile():
    stream = Terminal()
    with compile_progress.working("compiling", 50.0, stream, tick_s=0.001):
        deadline = time.monotonic() + 5
        while stream.getvalue().count("\r  0 s of about 50 s") < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert stream.getvalue().count("\r  0 s of about 50 s") >= 2
    assert stream.getvalue().endswith("\r\x1b[K  took 0 s\n")
    size = len(stream.getvalue())
    time.sleep(0.01)
    assert len(stream.getvalue()) == size  # nothing counts on


def test_an_error_ends_the_counting_and_prints_no_time():
    stream = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        compile_progress.working("compiling", 50.0, stream, tick_s=0.001),
    ):
        raise KeyboardInterrupt
    assert "took" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (600.0, "10:00 min")]
)
def test_durations(seconds, text):
    assert compile_progress.duration(seconds) == text
