#!/usr/bin/env bash
# Runs all benches, on both cells, and writes their tables into benches/README.md and their plots
# beside it. This takes a quarter of an hour. The machine should do nothing else in that time.
#
# LAYOUT_SEED is the seed of the random layouts. Without it each run uses another seed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The same seed on both cells.
export LAYOUT_SEED="${LAYOUT_SEED:-$((RANDOM * 32768 + RANDOM))}"

bench=(cargo bench --quiet -p benches)
"${bench[@]}" -- --save-baseline arc-swap
# Only the registries that differ on this cell, and those that they are compared with.
"${bench[@]}" --features slot-cell -- --save-baseline slots \
    '/(direct call|0\.4\.10|arc-swap Cache|(rust_vmm )?by &self|Dispatcher|rust_vmm Vcpu|memcpy.*)$'
cargo run --quiet --release -p benches --bin report -- "${CARGO_TARGET_DIR:-target}" benches
