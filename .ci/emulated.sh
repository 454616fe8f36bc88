#!/usr/bin/env bash
# Runs the crate's unit tests, and the tests of the devices that it builds, on the architectures that
# have them, under qemu's user mode emulation.
#
# The runners are set here, not in .cargo/config.toml, where Miri would take them too.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64-static -L /usr/aarch64-linux-gnu'
export CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_LINKER=riscv64-linux-gnu-gcc
export CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_RUNNER='qemu-riscv64-static -L /usr/riscv64-linux-gnu'

for target in aarch64 riscv64gc; do
    cargo test --target "$target-unknown-linux-gnu" --lib --test config
done
# The models with real threads, on the cell that bare metal has: on one without and one with the
# atomic instructions of ARMv8.1, between which the code chooses when it runs.
for cpu in cortex-a57 max; do
    QEMU_CPU=$cpu cargo test --target aarch64-unknown-linux-gnu --features slot-cell --lib -- \
        loom_tests stack:: publish::
done
