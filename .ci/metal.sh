#!/usr/bin/env bash
# Runs the tiny hypervisor of metal/ in QEMU, on both architectures, and shows that each of its checks detects its
# sabotage: on aarch64, and also on riscv64 if runs take more than 10 seconds.
#
# usage: .ci/metal.sh [SECONDS [CPUS...]]   seconds of a run (10), numbers of CPUs (4); sabotaged: 2 seconds, 3 CPUs
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
shift $(($# > 0 ? 1 : 0))
[ $# -gt 0 ] || set -- 4

# Each sabotage with its verdict. run.sh gives that of `silence`.
sabotages=(
    'slot wrong values were read'
    'shift wrong values were read'
    'bar wrong values were read'
    'chip wrong values were read'
    'beat wrong values were read'
    'poison vCPUs were inside quiescent devices'
    'stray accesses reached the wrong device'
    'failure devices failed'
    'unseen a vCPU did not see all hot-added devices'
    'hold removed devices are still in use'
    'deaf a CPU has had no timer interrupts'
    'hang makes no progress'
    'panic panicked at'
    'guest the guest has panicked'
    'silence no verdict in'
)

metal() (
    cd metal
    CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-../target}/metal")
    export CARGO_TARGET_DIR
    "$@"
)

# `sabotage ARCH NAME VERDICT`: fails if the run does not end with this verdict.
sabotage() {
    local arch=$1 name=$2 verdict=$3 limit=200 printed
    [ "$name" != silence ] || limit=10
    if printed=$(metal/run.sh "$arch" --cpus 3 --seconds 2 --sabotage "$name" --limit "$limit" 2>&1); then
        echo "error: $arch, sabotage $name: no check detected it" >&2
        return 1
    fi
    # From the last verdict on: a panic has two lines.
    printed=$(sed -n '/^FAILED/,$p' <<<"$printed")
    [[ $printed == *"$verdict"* ]] || {
        printf 'error: %s, sabotage %s: expected "%s", and got:\n%s\n' "$arch" "$name" "$verdict" "$printed" >&2
        return 1
    }
    echo "-- $arch, sabotage $name: $verdict"
}

metal cargo fmt --check
for arch in aarch64 riscv64; do
    target=aarch64-unknown-none-softfloat
    [ "$arch" = aarch64 ] || target=riscv64gc-unknown-none-elf
    metal cargo clippy --locked --quiet --release --target "$target" -- -D warnings
    for cpus in "$@"; do
        metal/run.sh "$arch" --cpus "$cpus" --seconds "$seconds"
    done
    # In short runs aarch64 alone is sabotaged.
    [ "$arch" = aarch64 ] || [ "$seconds" -gt 10 ] || continue
    for entry in "${sabotages[@]}"; do
        sabotage "$arch" "${entry%% *}" "${entry#* }"
    done
    [ "$arch" != aarch64 ] || sabotage "$arch" sysreg 'wrong values were read'
done
