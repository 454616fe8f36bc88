#!/usr/bin/env bash
# Runs the models of busmap/loom-tests and loom-tests under loom. Each prints how many executions it
# took and its bound. With a name as argument, runs those that match.
#
# Each in a process of its own: loom maps the stacks of every execution anew, and threads of one
# process would wait for each other in that.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
source .ci/models.sh

cargo clippy --lib --tests -- -D warnings

# Prints what the model does where it passes, and all where it fails. One that takes ten times as
# long as the longest should needs a bound.
model() {
    local out status=0
    out=$(timeout --foreground 600 "$1" --exact --nocapture "$2" 2>&1) || status=$?
    case $status in
        0) grep ' executions, ' <<<"$out" && return ;;
        124) echo "error: no end of $2 within 600 s" >&2 ;;
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
