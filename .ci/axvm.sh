#!/usr/bin/env bash
# Shows that the published axvm 0.5.9 compiles for bare metal with this crate as its `axdevice`, with and
# without `float-unmapped`, and with no other `axdevice`. With targets as arguments, checks these
# only.
#
# .ci/axvisor.sh builds all of Axvisor with `float-unmapped`, for aarch64 and riscv64.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/bare-metal.sh
[ $# -eq 0 ] || bare_metal=("$@")

CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/axvm")
export CARGO_TARGET_DIR
root=$PWD
# Here cargo reads this folder's own .cargo/config.toml.
cd tests/axvm
cargo fmt --check

for target in "${bare_metal[@]}"; do
    all=('' float-unmapped)
    case $target in aarch64-* | riscv64*) all=('') ;; esac
    for features in "${all[@]}"; do
        echo "-- $target ${features:-(no features)}"
        expected="axdevice v$(sed -nE 's/^version = "(.*)"/\1/p' "$root/Cargo.toml") ($root) [$features]"
        used=$(cargo tree --locked --quiet --target "$target" --features "$features" \
            --invert axdevice --depth 0 --format '{p} [{f}]')
        [ "$used" = "$expected" ] || {
            printf 'error: axvm should use\n%s\nbut uses\n%s\n' "$expected" "$used" >&2
            exit 1
        }
        cargo_for "$target" check --locked --quiet --features "$features"
    done
done
