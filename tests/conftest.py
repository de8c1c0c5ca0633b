"""Shared by all tests: the reference's numbers, long forms, order, compilation cache, memory."""

import os
import pathlib
import resource
from collections.abc import Iterator
from typing import Any

import jax
import pytest

import tests.typechecker  # noqa: F401  pyproject.toml names it, and jaxtyping imports `tests` alone

jax.config.update("jax_default_matmul_precision", "highest")
HERE = pathlib.Path(__file__).parent
CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(HERE.parent / ".jax_cache")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

PEAKS = pytest.StashKey[list[float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the long forms unless asked for; files that take long come first.

    Workers take whole files in this order, so that none starts the longest one at the end.
    """
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    marked = {
        item.path
        for item in items
        if item.get_closest_marker("processes") or item.get_closest_marker("tpu")
    }
    items.sort(key=lambda item: item.path not in marked)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module() -> Iterator[None]:
    """Compiled programs are dropped after each module: all together they take gigabytes."""
    yield
    jax.clear_caches()


def _peak_gib() -> float:
    """The largest resident set of this process and of those that it waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PEAKS] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    peak = getattr(node, "workeroutput", {}).get("peak_gib")
    if peak is not None:
        node.config.stash[PEAKS].append(peak)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["peak_gib"] = _peak_gib()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    peak = max([_peak_gib(), *config.stash[PEAKS]])
    terminalreporter.write_line(f"largest resident set of any process: {peak:.2f} GiB")


def fixtures() -> pathlib.Path:
    """The folder of golden numbers: `SAM_AUDIO_FIXTURES`, else the copy under tests/."""
    return pathlib.Path(os.environ.get("SAM_AUDIO_FIXTURES") or HERE / "golden")


@pytest.fixture(scope="session")
def fixtures_dir() -> pathlib.Path:
    return fixtures()
