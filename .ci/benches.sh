#!/usr/bin/env bash
# Each bench, once.
set -euo pipefail
cd "$(dirname "$0")/.."

# A target folder of their own: not optimised across crates, as .ci/instructions.sh has them, they build sooner.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/benches" CARGO_PROFILE_BENCH_LTO=off
cargo bench -p benches -- --test
