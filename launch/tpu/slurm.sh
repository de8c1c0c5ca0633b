#!/usr/bin/env bash
# Trains or separates on a SLURM cluster: one process per GPU, requeued when the job is pre-empted.
#
#   bash launch/tpu/slurm.sh [--dry-run] launch/train.py configs/small.py --workdir runs/small
#   bash launch/tpu/slurm.sh launch/separate.py --manifest items.jsonl --out out
#
# Environment: NAME (sam-audio), NODES (1), GPUS (8, of each node), CPUS (8, of each process), HOURS
# (24), PARTITION, PYTHON (.venv/bin/python). SLURM sends SIGTERM two minutes before the end: a
# training run saves, and --requeue lets the next job go on from there. Processes that train find
# each other by SLURM's own variables; those that separate need not.
set -euo pipefail

source "$(dirname "$0")/common.sh"

NODES="${NODES:-1}"
GPUS="${GPUS:-8}"
CPUS="${CPUS:-8}"
PARTITION="${PARTITION:+--partition=$PARTITION}"
COMMAND="srun --kill-on-bad-exit=1 ${PYTHON:-.venv/bin/python}$(printf ' %q' "$@")"

run sbatch \
    --job-name="${NAME:-sam-audio}" \
    --nodes="$NODES" \
    --ntasks-per-node="$GPUS" \
    --gpus-per-node="$GPUS" \
    --cpus-per-task="$CPUS" \
    --time="${HOURS:-24}:00:00" \
    --signal=TERM@120 \
    --requeue \
    --open-mode=append \
    ${PARTITION:+"$PARTITION"} \
    --wrap="bash -c $(printf '%q' "$COMMAND")"  # sh does not know how %q may quote
