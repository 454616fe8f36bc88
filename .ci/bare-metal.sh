# shellcheck shell=bash disable=SC2034
# The bare-metal targets, and how to build for them. Read in by other scripts, with `source`.

bare_metal=(
    aarch64-unknown-none-softfloat
    riscv64gc-unknown-none-elf
    x86_64-unknown-none
    loongarch64-unknown-none-softfloat
)

# `cargo_for TARGET COMMAND ARGUMENT…`: a cargo command for a target.
#
# For loongarch64 cargo also builds the core library, because not every mirror has it. This option is
# unstable in cargo. It needs the variable, which permits all crates of that build to use nightly
# features; the other targets show that this crate needs none.
cargo_for() {
    local target=$1 command=$2
    shift 2
    if [[ $target == loongarch64-unknown-none* ]]; then
        RUSTC_BOOTSTRAP=1 cargo "$command" -Zbuild-std=core,alloc --target "$target" "$@"
    else
        cargo "$command" --target "$target" "$@"
    fi
}
