#!/usr/bin/env bash
# Installs the tools of the other scripts that a bare machine lacks.
set -euo pipefail
cd "$(dirname "$0")/.."

# The toolchain that rust-toolchain.toml names, also where rustup does not install it by itself.
rustup toolchain install --no-self-update
# The sources are for the core library of loongarch64, the tools for .ci/thread-locals.sh.
rustup component add rustfmt clippy rust-src llvm-tools
# The compiler of a user of busmap: .ci/outside.sh.
rustup toolchain list | grep -q '^stable' || rustup toolchain install stable --profile minimal --no-self-update
# Miri, ThreadSanitizer and the fuzzers need a nightly compiler.
source .ci/nightly-toolchain.sh
rustup toolchain install "$nightly" --profile minimal --no-self-update --component miri --component rust-src --component clippy
# Axvisor uses it too: .ci/axvisor.sh.
rustup target add --toolchain "$nightly" aarch64-unknown-none-softfloat riscv64gc-unknown-none-elf
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --version 0.13.2 --locked
rustup target add aarch64-unknown-linux-gnu riscv64gc-unknown-linux-gnu \
    aarch64-unknown-none-softfloat riscv64gc-unknown-none-elf x86_64-unknown-none

# The emulators and linkers of .ci/emulated.sh, the machines of .ci/metal.sh and .ci/axvisor.sh, the disassembler of
# .ci/objects.sh, the counter of .ci/instructions.sh, the compiler for libFuzzer, the linter of Python, and the interpreter
# of .ci/modules.sh, .ci/links.sh and .ci/words.sh, with the module that makes environments.
missing=
for tool in qemu-aarch64-static aarch64-linux-gnu-gcc aarch64-linux-gnu-objdump \
    qemu-riscv64-static riscv64-linux-gnu-gcc qemu-system-aarch64 qemu-system-riscv64 valgrind c++ python3 pyflakes3; do
    command -v "$tool" >/dev/null || missing=yes
done
python3 -c 'import ensurepip' || missing=yes
if [ -n "$missing" ]; then
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends qemu-user-static \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross \
        qemu-system-arm qemu-system-misc opensbi valgrind g++ python3 python3-venv pyflakes3
fi
