#!/usr/bin/env bash
# Runs the built-in interrupt controllers under Miri, on their own architectures, with two vCPUs on each: through the
# registry there is no race; in the bare devices Miri must find each known race.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/nightly-toolchain.sh
source .ci/at-least.sh

# The devices make pointers from integers, and the host's registers live as long as the process.
export MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks'
arm=aarch64-unknown-linux-gnu
riscv=riscv64gc-unknown-linux-gnu

# Runs tests. Arguments: the target, the test program, the minimum of tests that the filter must match; then the filter.
pass() {
    local target=$1 program=$2 least=$3
    shift 3
    cargo "+$nightly" miri test --quiet --target "$target" --test "$program" -- "$@" | at_least "$least"
}

# The text by which Miri reports a race in a device: the type of the state, or a line of the device's source, depending
# on which of the two accesses comes second.
device='Bitmap<1024>|VGicRRegs|VirtualGitsRegs|arm_vgic-[0-9.]+/src/v3/[a-z]+\.rs:[0-9]+'

# Each test of a bare device must end in a data race of that device. Most schedules show it, so a few are tried: in
# some, one vCPU ends before the other begins, and memory that passes from one to the other orders the two.
race() {
    local races race
    races=$(cargo "+$nightly" miri test --quiet --target $arm --test races -- --list bare:: |
        sed -nE 's/^(bare::.*): test$/\1/p')
    [ -n "$races" ] || {
        echo 'error: no races to look for' >&2
        exit 1
    }
    for race in $races; do
        found_by_some_schedule "$race"
    done
}

found_by_some_schedule() {
    local race=$1 seed said found
    for seed in 0 1 2 3 4 5 6 7; do
        said=$(MIRIFLAGS="$MIRIFLAGS -Zmiri-seed=$seed" \
            cargo "+$nightly" miri test --quiet --target $arm --test races -- --exact "$race" 2>&1) &&
            continue
        found=$(grep -A 20 'Data race detected' <<<"$said" | grep -m 1 -oE "$device") || {
            echo "error: $race failed, but not by a data race of the device: $said" >&2
            exit 1
        }
        echo "$race: a data race of ${found%%$'\n'*} with seed $seed, as expected"
        return
    done
    echo "error: no data race in $race: it passed with each seed" >&2
    exit 1
}

pass $arm config 8 two_vcpus
pass $riscv config 1 two_vcpus
pass $arm races 9 behind_the_registry
race
