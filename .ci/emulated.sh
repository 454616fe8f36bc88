#!/usr/bin/env bash
# Runs the tests of both crates, all of them, on the architectures whose interrupt controllers axdevice builds,
# under qemu's user mode emulation.
#
# usage: .ci/emulated.sh [ARCH...]   aarch64 and riscv64gc
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/emulators.sh
[ $# -gt 0 ] || set -- aarch64 riscv64gc

# Each step of a test takes many times as long here; so it pays to optimise.
export AXDEVICE_FEW_ROUNDS=1 BUSMAP_FEW_ROUNDS=1 CARGO_PROFILE_TEST_OPT_LEVEL=1
# A target folder of their own, so that what runs beside them need not wait.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/emulated"

for arch in "$@"; do
    cargo test --target "$arch-unknown-linux-gnu"
    [ "$arch" = aarch64 ] || continue
    # The cell that bare metal has there, without and with the atomic instructions of ARMv8.1, between which
    # the code chooses when it runs. With them, only the models, with real threads, and what has atomics.
    export QEMU_CPU=cortex-a57
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell -p busmap --tests
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell -p "$(cargo pkgid)" --lib --test suite
    export QEMU_CPU=max
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell --lib -- loom_tests stack:: publish::
    unset QEMU_CPU
done
