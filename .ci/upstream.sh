#!/usr/bin/env bash
# Checks `upstream`, the devices of axdevice 0.8.5 on busmap: formatting, clippy, documentation, and the tests, among them
# 100,000 random operations against `DeviceRuntime`. axdevice_base 0.7 needs a nightly compiler.
set -euo pipefail
cd "$(dirname "$0")/../upstream"
source ../.ci/nightly-toolchain.sh

CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-../target}/upstream")
export CARGO_TARGET_DIR
cargo fmt --check
cargo "+$nightly" clippy --locked --release --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo "+$nightly" doc --locked --release --no-deps
cargo "+$nightly" test --locked --release --tests
