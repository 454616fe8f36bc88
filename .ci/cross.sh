#!/usr/bin/env bash
# Checks every supported target with every feature.
set -euo pipefail
cd "$(dirname "$0")/.."

for target in {x86_64,aarch64,riscv64gc}-unknown-linux-gnu \
    aarch64-unknown-none-softfloat riscv64gc-unknown-none-elf x86_64-unknown-none; do
    for features in '' float-unmapped trust-guest-its slot-cell; do
        echo "-- $target ${features:-(no features)}"
        cargo clippy --quiet --target "$target" --features "$features" -- -D warnings
    done
done
