#!/usr/bin/env bash
# Runs all benches, on both cells, and writes their tables into benches/README.md and their plots
# beside it. Takes a quarter of an hour, in which the machine should do nothing else.
#
# LAYOUT_SEED chooses the random layouts; without it each run has others.
set -euo pipefail
cd "$(dirname "$0")/.."

# The same on both cells.
export LAYOUT_SEED="${LAYOUT_SEED:-$((RANDOM * 32768 + RANDOM))}"

bench=(cargo bench --quiet -p benches)
"${bench[@]}" -- --save-baseline arc-swap
# The registries that differ on the other cell, and those for comparison.
"${bench[@]}" --features slot-cell -- --save-baseline slots \
    '/(direct call|0\.4\.10|arc-swap Cache|(rust_vmm )?by &self|Dispatcher|rust_vmm Vcpu|memcpy.*)$'
cargo run --quiet --release -p benches --bin report -- "${CARGO_TARGET_DIR:-target}" benches
