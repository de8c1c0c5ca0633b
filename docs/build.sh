#!/usr/bin/env bash
# Builds the site into site/, strictly: a dead link or a docstring that cannot be read is an error.
set -euo pipefail
EXTRAS=docs
source "$(dirname "$0")/../launch/environment.sh"
JAX_PLATFORMS=cpu .venv/bin/python -m sphinx --fail-on-warning --keep-going --quiet \
    --conf-dir docs . site
echo "site/index.html"
