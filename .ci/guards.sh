#!/usr/bin/env bash
# Tries the guards of the built-in interrupt controllers in full, on both architectures: also at
# every reserved offset, where the check tries only a sample.
#
# usage: .ci/guards.sh [ARCH...]   aarch64 and riscv64gc, two or three minutes each
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/emulators.sh
[ $# -gt 0 ] || set -- aarch64 riscv64gc

export GUARDS_IN_FULL=1 CARGO_PROFILE_TEST_OPT_LEVEL=2
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/guards"
for arch in "$@"; do
    SECONDS=0
    cargo test --target "$arch-unknown-linux-gnu" --test guards -- --nocapture
    echo "-- $arch: $SECONDS s"
done
