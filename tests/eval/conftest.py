"""A folder of fixed mixtures."""

import pytest

from tests.eval.listing import make_folder, three_lines


@pytest.fixture
def lines():
    return three_lines()


@pytest.fixture
def bench_folder(tmp_path, lines):
    make_folder(tmp_path / "bench", lines)
    return tmp_path / "bench"
