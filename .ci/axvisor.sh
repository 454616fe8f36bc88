#!/usr/bin/env bash
# Builds the published hypervisor Axvisor with this crate in it, boots it on both architectures, and checks the output
# of its guests. With `whole`, also beside two busy processes and with complete sweeps, and shows that each check
# detects its fault.
#
# usage: .ci/axvisor.sh [whole]
set -euo pipefail
cd "$(dirname "$0")/.."

# `clippy CRATE`: for bare metal, because none of these crates builds for the host.
clippy() (
    CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/axvisor/$1")
    export CARGO_TARGET_DIR
    cd "tests/axvisor/$1"
    cargo fmt --check
    for target in aarch64-unknown-none-softfloat riscv64gc-unknown-none-elf; do
        cargo clippy --locked --quiet --release --target "$target" -- -D warnings
    done
)

clippy guest
tests/axvisor/run.py
if [ "${1-}" = whole ]; then
    clippy sabotage
    tests/axvisor/run.py --whole --load 2
    tests/axvisor/run.py --sabotage
fi
