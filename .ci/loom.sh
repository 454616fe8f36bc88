#!/usr/bin/env bash
# Runs the models of loom-tests under loom. Each prints how many executions it took and its bound.
set -euo pipefail
cd "$(dirname "$0")/.."

# A target folder of their own: the flag would have everything built again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUSTFLAGS='--cfg loom'
cargo clippy --lib --tests -- -D warnings
cargo test --release --lib loom_tests -- --nocapture "$@"
