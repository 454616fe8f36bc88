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
    cargo test --target "$target-unknown-linux-gnu" --lib --test config --test guards
done
