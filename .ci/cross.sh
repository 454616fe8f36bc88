#!/usr/bin/env bash
# Clippy for every supported target except the host (.ci/lint.sh), in every configuration that differs.
#
# On bare metal `slot-cell` changes nothing. `float-unmapped` and `trust-guest-its` only select a default each, so one
# target suffices: aarch64, which has the devices of `trust-guest-its`.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/bare-metal.sh

check() {
    local target=$1 features=$2
    shift 2
    echo "-- $target ${features:-(no features)}"
    cargo_for "$target" clippy --quiet --features "$features" "$@" -- -D warnings
}

for target in {aarch64,riscv64gc}-unknown-linux-gnu; do
    check "$target" '' --all-targets
done
for target in "${bare_metal[@]}"; do
    check "$target" ''
done
for features in float-unmapped trust-guest-its float-unmapped,trust-guest-its; do
    check aarch64-unknown-none-softfloat "$features"
done
check aarch64-unknown-linux-gnu float-unmapped,trust-guest-its,slot-cell
