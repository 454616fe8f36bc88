#!/usr/bin/env bash
# Runs the models of loom-tests under loom. Each prints how many executions it took and its bound.
#
# Each in a process of its own: loom maps the stacks of every execution anew, and threads of one
# process would wait for each other in that.
set -euo pipefail
cd "$(dirname "$0")/.."

# A target folder of their own: the flag would have everything built again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUSTFLAGS='--cfg loom'
export CARGO_PROFILE_BENCH_LTO=off
cargo clippy --lib --tests -- -D warnings

# The same program as in .ci/mutants.sh.
program=$(cargo rustc --quiet --lib --profile bench --message-format=json |
    grep -o '"executable":"[^"]*"' | tail -n 1 | cut -d'"' -f4)
export program

# Prints what the model does where it passes, and all where it fails. One that takes ten times as
# long as the longest should needs a bound.
model() {
    local out status=0
    out=$(timeout --foreground 600 "$program" --exact --nocapture "$1" 2>&1) || status=$?
    case $status in
        0) grep ' executions, ' <<<"$out" && return ;;
        124) echo "error: no end of $1 within 600 s" >&2 ;;
        *) printf '%s\n' "$out" >&2 ;;
    esac
    return 1
}
export -f model

models=$("$program" --list --format terse "${1:-loom_tests}" | sed -n 's/: test$//p')
[ -n "$models" ] || { echo 'error: there is no such model' >&2; exit 1; }
xargs -P "$(nproc)" -I {} bash -euo pipefail -c 'model {}' <<<"$models"
echo "$(wc -l <<<"$models") models passed"
