#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster: one xpk workload, restarted by Kubernetes when it fails or a
# slice is pre-empted.
#
#   bash launch/tpu/gke_xpk.sh [--dry-run] \
#       launch/train.py configs/small.py@v5e-256 --workdir /mnt/runs/small
#
# The workdir and the caches are stored on a volume that every pod mounts (xpk storage attach).
#
# Environment: NAME (sam-audio), CLUSTER, ZONE, PROJECT, TPU_TYPE (v5litepod-256), SLICES (1), IMAGE
# (a container with this repository in its working folder and the package installed), RESTARTS (20).
# The hosts find each other by the variables that GKE sets, SAM_AUDIO_START_TIMEOUT gives them time.
set -euo pipefail

source "$(dirname "$0")/common.sh"

run xpk workload create \
    --workload "${NAME:-sam-audio}" \
    --cluster "${CLUSTER:?set CLUSTER}" \
    --zone "${ZONE:?set ZONE, e.g. us-west4-a}" \
    --project "${PROJECT:?set PROJECT}" \
    --tpu-type "${TPU_TYPE:-v5litepod-256}" \
    --num-slices "${SLICES:-1}" \
    --docker-image "${IMAGE:?set IMAGE}" \
    --max-restarts "${RESTARTS:-20}" \
    --env "SAM_AUDIO_START_TIMEOUT=${SAM_AUDIO_START_TIMEOUT:-900}" \
    --command "python$(printf ' %q' "$@")"
