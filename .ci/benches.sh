#!/usr/bin/env bash
# Each bench, once.
set -euo pipefail
cd "$(dirname "$0")/.."

# A separate target folder: without the optimisation across crates that .ci/instructions.sh uses, they build
# faster.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/benches" CARGO_PROFILE_BENCH_LTO=off
cargo bench -p benches -- --test
