#!/usr/bin/env bash
# Runs tests on the architectures whose interrupt controllers axdevice builds, under qemu's user mode emulation: the
# unit tests of both crates, the test suite, and those of interrupt controllers; on aarch64 torture and the slot cell too.
#
# usage: .ci/emulated.sh [ARCH...]   aarch64 and riscv64gc
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/emulators.sh
[ $# -gt 0 ] || set -- aarch64 riscv64gc

# Emulated tests run many times slower, so they are optimised.
export AXDEVICE_FEW_ROUNDS=1 BUSMAP_FEW_ROUNDS=1 CARGO_PROFILE_TEST_OPT_LEVEL=1
# A separate target folder, so that steps that run at the same time do not wait.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/emulated"

for arch in "$@"; do
    # The programs to which the architecture matters.
    cargo test --target "$arch-unknown-linux-gnu" --lib --test suite --test config --test guards
    [ "$arch" = aarch64 ] || continue
    cargo test --target aarch64-unknown-linux-gnu --test torture
    # The cell of bare metal, without and with the atomic instructions of ARMv8.1, between which the code
    # chooses at run time. With them, only the models, with real threads, and the modules with atomics.
    export QEMU_CPU=cortex-a57
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell -p busmap --lib --test registry --test vcpu
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell -p "$(cargo pkgid)" --lib
    export QEMU_CPU=max
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell -p busmap --lib -- loom_tests stack:: publish::
    cargo test --target aarch64-unknown-linux-gnu --features slot-cell -p "$(cargo pkgid)" --lib -- loom_tests
    unset QEMU_CPU
done
