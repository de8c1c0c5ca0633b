#!/usr/bin/env bash
# Trains on a Cloud TPU slice: queues it, installs the package on every host, runs one command on all
# hosts at once, and starts again when the slice is pre-empted or a host fails.
#
#   bash launch/tpu/queued_resources.sh [--dry-run] \
#       launch/train.py configs/small.py@v5e-256 --workdir /mnt/runs/small
#
# The workdir and the caches are on storage that every host mounts; SETUP is where to mount it.
#
# Environment: NAME (sam-audio), ZONE, PROJECT, ACCELERATOR (v5litepod-256), VERSION
# (v2-alpha-tpuv5-lite), SOURCE (the git URL of this repository, which the hosts must be able
# to read), REVISION (the commit of this clone, which must be pushed; every host has it at each
# start), SPOT=1 for pre-emptible chips, ATTEMPTS (20), WAIT (60, seconds between two queries of the
# state), SETUP (a command for every host before the start, e.g. gcsfuse BUCKET /mnt/runs). The hosts
# find each other by the metadata of the slice. Exit status 2 is an error that a new start does not
# mend. The slice is kept: delete it with the last command printed.
set -euo pipefail

source "$(dirname "$0")/common.sh"

NAME="${NAME:-sam-audio}"
ZONE="${ZONE:?set ZONE, e.g. us-west4-a}"
PROJECT="${PROJECT:?set PROJECT}"
ACCELERATOR="${ACCELERATOR:-v5litepod-256}"
VERSION="${VERSION:-v2-alpha-tpuv5-lite}"
SOURCE="${SOURCE:?set SOURCE, the git URL of this repository}"
REVISION="${REVISION:-$(git -C "$(dirname "$0")" rev-parse HEAD 2>/dev/null || echo HEAD)}"
ATTEMPTS="${ATTEMPTS:-20}"
WAIT="${WAIT:-60}"
LOCATION=(--zone "$ZONE" --project "$PROJECT")

on_all_hosts() { run gcloud compute tpus tpu-vm ssh "$NAME" "${LOCATION[@]}" --worker=all --command="$1"; }

create() {
    local kind=()
    [ -z "${SPOT:-}" ] || kind=(--spot)
    run gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" "${LOCATION[@]}" \
        --accelerator-type "$ACCELERATOR" --runtime-version "$VERSION" ${kind[@]+"${kind[@]}"}
}

delete() {
    run gcloud compute tpus queued-resources delete "$NAME" "${LOCATION[@]}" --force --quiet
}

state() {
    gcloud compute tpus queued-resources describe "$NAME" "${LOCATION[@]}" \
        --format='value(state.state)' 2>/dev/null || echo ABSENT
}

wait_until_active() {
    [ -z "$DRY" ] || { create; return; }
    while true; do
        case "$(state)" in
            ACTIVE) return ;;
            ABSENT) create ;;
            FAILED | SUSPENDED) delete ;;
        esac
        sleep "$WAIT"
    done
}

INSTALL="{ [ -d sam_audio_jax ] || git clone --depth 1 $(printf '%q' "$SOURCE") sam_audio_jax; }"
INSTALL+=" && cd sam_audio_jax && git fetch -q --depth 1 origin $(printf '%q' "$REVISION")"
INSTALL+=" && git checkout -q FETCH_HEAD && git log -1 --oneline && { command -v python3.11 ||"
INSTALL+=" sudo apt-get install -qq -y python3.11 python3.11-venv; }"
INSTALL+=" && python3.11 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'"
[ -z "${SETUP:-}" ] || INSTALL+=" && { $SETUP; }"
COMMAND="cd sam_audio_jax && .venv/bin/python$(printf ' %q' "$@")"

for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
    wait_until_active
    status=0
    { on_all_hosts "$INSTALL" && on_all_hosts "$COMMAND"; } || status=$?
    case "$status" in
        0 | 2) break ;;
    esac
    echo "attempt $attempt ended with status $status; starting again" >&2
    sleep "$WAIT"
done
echo "when done: gcloud compute tpus queued-resources delete $NAME ${LOCATION[*]} --force"
exit "$status"
