# Sourced by quickstart.sh and tests/run.sh: a virtual environment in .venv with the package in it.
# PYTHON names the interpreter to start from (3.11 or newer); EXTRAS the optional dependencies.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "error: no Python found; 3.11 or newer is needed (set PYTHON to its path)" >&2
    exit 2
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv || exit 1
stamp=.venv/installed.${EXTRAS:-plain}
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "installing into .venv (once)" >&2
    # Not compiled: Python does so for what is imported, a part of it, when that happens.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
        --editable ".${EXTRAS:+[$EXTRAS]}" || exit 1
    touch "$stamp"
fi
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
