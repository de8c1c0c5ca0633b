"""The environment of processes that tests start."""

import os
import pathlib

import jax

ROOT = pathlib.Path(__file__).parent.parent


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """Variables of a child: this checkout, so many CPU devices, the cache and flags of this run.

    Nothing else is inherited, so that a cluster's or a user's own variables change no test.
    """
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "XLA_FLAGS", "SSL_CERT_FILE")
    # By OPENBLAS_CORETYPE and its like NumPy's products choose kernels, which round differently.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith("OPENBLAS_")
    }
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        **more,
    }
