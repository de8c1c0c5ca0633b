#!/usr/bin/env bash
# Lint, types and tests.
#
#   bash tests/run.sh                    all of it, each test in its smallest honest form
#   bash tests/run.sh --long             then also what only a bigger form proves, and the golden
#                                        numbers again, compiled as users compile
#   bash tests/run.sh quick              one of the three parts that can run side by side:
#   bash tests/run.sh processes          real processes that train, separate, are killed and go on
#   bash tests/run.sh tpu                programs compiled for TPUs
#   bash tests/run.sh -k NAME            arguments for pytest, in one process
set -uo pipefail
EXTRAS=dev
source "$(dirname "$0")/../launch/environment.sh"

# The TPU's compiler, for tests that plan; beside the environment, because inside it every JAX
# process would look for TPUs and say that there are none.
install_libtpu() {
    [ -e .venv/libtpu ] && return
    wanted=$(.venv/bin/python -c 'from importlib.metadata import requires
print(next(r.split(";")[0] for r in requires("jax") if r.startswith("libtpu")))')
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
        --target .venv/libtpu "$wanted" ||
        echo "no $wanted here: tests that compile for TPUs will be skipped" >&2
}
install_libtpu & # while lint is checked
installs=($!)

# A browser for the tests of the page, on machines that exist for tests; elsewhere a missing one is
# left to whoever owns the machine, and these tests are skipped.
install_chromium() {
    for name in chromium-headless-shell chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return
    export DEBIAN_FRONTEND=noninteractive
    { timeout 90 apt-get -qq -o DPkg::Lock::Timeout=30 update &&
        timeout 150 apt-get -qq -o DPkg::Lock::Timeout=30 install --yes --no-install-recommends \
            chromium-headless-shell; } >/dev/null 2>&1 ||
        echo "no Chromium here: tests of the page in a browser will be skipped" >&2
}

part=${1:-}
case $part in
quick | tpu) ;;
*)
    install_chromium &
    installs+=($!)
    ;;
esac
parallel=(-n "${TEST_WORKERS:-auto}" --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
case $part in
'' | --long) arguments=("${parallel[@]}") ;;
quick) arguments=("${parallel[@]}" -m "not processes and not tpu" "${@:2}") ;;
processes | tpu) arguments=("${parallel[@]}" -m "$part" "${@:2}") ;;
*) arguments=("$@") ;;
esac

case $part in
'' | --long | quick)
    .venv/bin/ruff check . || exit 1
    .venv/bin/ruff format --check . || exit 1
    ;;
esac

# Types are checked while tests run: alone, pyright leaves all cores but one idle.
types= report=$(mktemp)
trap '[ -z "$types" ] || kill "$types" 2>/dev/null; rm -f "$report"' EXIT
case $part in
'' | --long | quick)
    .venv/bin/pyright --pythonpath .venv/bin/python >"$report" 2>&1 &
    types=$!
    ;;
esac
wait "${installs[@]}"

# Most of the time of an optimised run is the compiler's, on programs that run once: these flags
# compile a training step in a third of it.
fast="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
fast+=" --xla_cpu_parallel_codegen_split_count=1"
XLA_FLAGS="${XLA_FLAGS:-} $fast" .venv/bin/python -m pytest "${arguments[@]}"
status=$?
if [ "$part" = --long ]; then
    .venv/bin/python -m pytest "${parallel[@]}" --long -m "long or golden" "${@:2}" || status=$?
fi
if [ -n "$types" ]; then
    wait "$types" || status=1
    types=
    cat "$report"
fi
exit $status
