# shellcheck shell=bash
# For `source`: makes cargo link and run programs for the architectures whose interrupt controllers this
# crate builds, under qemu's user mode emulation.
#
# The runners are set here, not in .cargo/config.toml, where Miri would use them too.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64-static -L /usr/aarch64-linux-gnu'
export CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_LINKER=riscv64-linux-gnu-gcc
export CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_RUNNER='qemu-riscv64-static -L /usr/riscv64-linux-gnu'
