#!/usr/bin/env bash
# The main job, small: train on real sound, evaluate on held-out mixtures, separate one of them.
# bash launch/quickstart.sh [WORKDIR]        (about 12 minutes on 2 cores, installation included)
set -euo pipefail
target=${1:-runs/quickstart}
source "$(dirname "$0")/environment.sh"

cache=$target/latents
.venv/bin/python launch/prepare.py configs/quickstart.py --items "${ITEMS:-400}" --out "$cache"
.venv/bin/python launch/train.py configs/quickstart.py --workdir "$target/run" --data.cache "$cache"

report=$(ls -td "$target"/run/eval/*/ | head -n 1)
echo
.venv/bin/python -c 'import sys; from sam_audio_jax.eval.summary import summary; print(summary(sys.argv[1]))' \
    "${report}results.json"
echo "checkpoints: $target/run/checkpoints"
echo "scores:      ${report}results.json"
echo "report:      ${report}report.html (players and spectrograms; open it in a browser)"
