#!/usr/bin/env bash
# Checks every supported target with every feature.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/bare-metal.sh

for target in {x86_64,aarch64,riscv64gc}-unknown-linux-gnu "${bare_metal[@]}"; do
    for features in '' float-unmapped trust-guest-its slot-cell; do
        echo "-- $target ${features:-(no features)}"
        cargo_for "$target" clippy --quiet --features "$features" -- -D warnings
    done
done
