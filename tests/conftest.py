"""Shared by all tests: where the reference's numbers lie, full matrix precision, compile cache."""

import os
import pathlib

import jax
import pytest

jax.config.update("jax_default_matmul_precision", "highest")
HERE = pathlib.Path(__file__).parent
CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(HERE.parent / ".jax_cache")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def fixtures() -> pathlib.Path:
    """The folder of golden numbers: `SAM_AUDIO_FIXTURES`, else the copy under tests/."""
    return pathlib.Path(os.environ.get("SAM_AUDIO_FIXTURES") or HERE / "golden")


@pytest.fixture(scope="session")
def fixtures_dir() -> pathlib.Path:
    return fixtures()
