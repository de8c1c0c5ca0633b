#!/usr/bin/env bash
# The main job, small: train on real sound, evaluate on held-out mixtures, separate one of them.
# bash launch/quickstart.sh [FOLDER [--FIELD VALUE ...]]
# About 12 minutes on 2 cores, installation included; flags override fields of the config, so that
# ITEMS=64 bash launch/quickstart.sh runs/short --max-minutes 1 shows the same in 3 minutes.
set -euo pipefail
target=${1:-runs/quickstart}
flags=("${@:2}")
source "$(dirname "$0")/environment.sh"

cache=$target/latents
.venv/bin/python launch/prepare.py configs/quickstart.py --out "$cache" \
    --items "${ITEMS:-400}" ${flags[@]+"${flags[@]}"}
.venv/bin/python launch/train.py configs/quickstart.py --workdir "$target/run" \
    --data.cache "$cache" ${flags[@]+"${flags[@]}"}

report=$(ls -td "$target"/run/eval/*/ | head -n 1)
echo
.venv/bin/python -c 'import sys; from sam_audio_jax.eval.summary import summary; print(summary(sys.argv[1]))' \
    "${report}results.json"
echo "checkpoints: $target/run/checkpoints"
echo "scores:      ${report}results.json"
echo "report:      ${report}report.html (players and spectrograms; open it in a browser)"
