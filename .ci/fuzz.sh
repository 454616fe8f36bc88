#!/usr/bin/env bash
# Fuzzes the registry and configurations, starting from the committed seeds. If SECONDS is more than 10, fuzzes the registry
# on the slot cell too. New inputs go to the corpus in the target folder, a failing input to fuzz/artifacts.
#
# usage: .ci/fuzz.sh [SECONDS]   seconds for each target (5)
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/nightly-toolchain.sh

seconds=${1:-5}

# Absolute: cargo-fuzz changes its folder.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
export CARGO_TARGET_DIR

fuzz() {
    local target=$1 features=$2 corpus=$CARGO_TARGET_DIR/corpus/$1
    echo "-- $target ${features:-(no features)}"
    mkdir -p "$corpus"
    cargo "+$nightly" fuzz run --features "$features" "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -len_control=0 -max_len=1024 -timeout=10 -print_final_stats=1
}

fuzz operations ''
fuzz config ''
[ "$seconds" -le 10 ] || fuzz operations slot-cell
