# Sourced by the scripts beside it: --help, --dry-run, and how a command is run.
usage() { sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0"; }

DRY=""
case "${1:-}" in
    -h | --help | "") usage; exit 0 ;;
    --dry-run) DRY=1; shift ;;
esac

run() {
    printf '%q ' "$@"
    printf '\n'
    [ -n "$DRY" ] || "$@"
}
