#!/usr/bin/env bash
# Checks every supported hosted target.
set -euo pipefail
cd "$(dirname "$0")/.."

for target in x86_64 aarch64 riscv64gc; do
    for features in '' float-unmapped; do
        echo "-- $target ${features:-(no features)}"
        cargo clippy --target "$target-unknown-linux-gnu" --features "$features" -- -D warnings
    done
done
