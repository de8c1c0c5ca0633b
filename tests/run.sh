#!/usr/bin/env bash
# Lint, types and all tests: bash tests/run.sh [arguments for pytest]
set -uo pipefail
EXTRAS=dev
source "$(dirname "$0")/../launch/environment.sh"

# The TPU's compiler, for tests that plan; beside the environment, because inside it every JAX
# process would look for TPUs and say that there are none.
if [ ! -e .venv/libtpu ]; then
    wanted=$(.venv/bin/python -c 'from importlib.metadata import requires
print(next(r.split(";")[0] for r in requires("jax") if r.startswith("libtpu")))')
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        --target .venv/libtpu "$wanted" ||
        echo "no $wanted here: tests that compile for TPUs will be skipped" >&2
fi

if [ $# -eq 0 ]; then
    .venv/bin/ruff check . || exit 1
    .venv/bin/ruff format --check . || exit 1
    .venv/bin/pyright --pythonpath .venv/bin/python || exit 1
fi
exec .venv/bin/python -m pytest "$@"
