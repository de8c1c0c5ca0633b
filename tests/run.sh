#!/usr/bin/env bash
# Lint, types and all tests: bash tests/run.sh [arguments for pytest]
set -uo pipefail
EXTRAS=dev
source "$(dirname "$0")/../launch/environment.sh"

if [ $# -eq 0 ]; then
    .venv/bin/ruff check . || exit 1
    .venv/bin/ruff format --check . || exit 1
    .venv/bin/pyright --pythonpath .venv/bin/python || exit 1
fi
exec .venv/bin/python -m pytest "$@"
