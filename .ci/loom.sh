#!/usr/bin/env bash
# Runs the models of busmap/loom-tests and loom-tests under loom. Each prints the number of
# executions and its bound. With a name as argument, runs the models that match.
#
# Each model has its own process: loom maps new stacks for every execution, and the threads of
# one process would wait for each other there.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
source .ci/models.sh

cargo clippy --lib -- -D warnings

# Prints the summary of a model that passes, and the whole output of one that fails. A model that
# takes ten times as long as the longest one should needs a bound.
model() {
    local out status=0
    out=$(timeout --foreground 600 "$1" --exact --nocapture "$2" 2>&1) || status=$?
    case $status in
        0) grep ' executions, ' <<<"$out" && return ;;
        124) echo "error: $2 does not end within 600 s" >&2 ;;
        *) printf '%s\n' "$out" >&2 ;;
    esac
    return 1
}
export -f model

models=
for crate in "${crates[@]}"; do
    program=$(program "$crate")
    found=$("$program" --list --format terse "${1:-loom_tests}" |
        awk -v program="$program" 'sub(/: test$/, "") { print program, $0 }')
    [ -n "$found" ] || [ $# -gt 0 ] || { echo "error: no models in $crate" >&2; exit 1; }
    models+=${found:+$found$'\n'}
done
[ -n "$models" ] || { echo 'error: there is no such model' >&2; exit 1; }
printf %s "$models" | xargs -P "$(nproc)" -L 1 bash -euo pipefail -c 'model "$@"' _
echo "$(printf %s "$models" | wc -l) models passed"
