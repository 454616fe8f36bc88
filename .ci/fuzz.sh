#!/usr/bin/env bash
# Fuzzes the registry on either cell, and configurations on one, starting from the committed seeds. New inputs go to the corpus in the target
# folder, a failing input to fuzz/artifacts.
#
# usage: .ci/fuzz.sh [SECONDS]   seconds for each target and cell (5)
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/nightly-toolchain.sh

seconds=${1:-5}

# Absolute: cargo-fuzz changes its folder.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
export CARGO_TARGET_DIR

for features in '' slot-cell; do
    for target in operations config; do
        # The cell does not matter to a configuration.
        [ "$target $features" != 'config slot-cell' ] || continue
        echo "-- $target ${features:-(no features)}"
        corpus=$CARGO_TARGET_DIR/corpus/$target
        mkdir -p "$corpus"
        cargo "+$nightly" fuzz run --features "$features" "$target" "$corpus" "fuzz/seeds/$target" -- \
            -max_total_time="$seconds" -len_control=0 -max_len=1024 -timeout=10 -print_final_stats=1
    done
done
