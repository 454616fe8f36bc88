#!/usr/bin/env bash
# Runs the concurrent tests of busmap and of axdevice, and the unit tests of the modules with `unsafe`, under
# Miri on both cells. Each seed is another schedule, and another choice of the values that weak memory permits a
# thread to read.
#
# usage: .ci/miri.sh [SEEDS [FIRST]]   SEEDS for each cell (16), from seed FIRST (0) on
#
# The first half of the seeds checks Stacked Borrows, the second half Tree Borrows; a single one checks Tree
# Borrows. The slower tests, of busmap/tests and of the suite, get a quarter of the seeds, those of torture an
# eighth, those of one thread one or two. Leaks are errors. Freed addresses are reused at once, which exposes code that
# confuses a new object with a freed one.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/nightly-toolchain.sh
source .ci/at-least.sh

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

seeds=${1:-16}
# Whether both cells run all of the slower tests; otherwise the slot cell runs some of them.
many() { [ "$seeds" -ge 8 ]; }
# A fraction of the seeds for the slower tests, but at least one.
fewer() { echo $((seeds / $1 < 1 ? 1 : seeds / $1)); }
first=${2:-0}

busmap='-p busmap'
axdevice="-p $(cargo pkgid)"

# Runs tests on a cell. Arguments: its features, its Miri flags, the number of seeds; then the crate and its
# test program, the minimum number of its tests, and parts of their names.
sweep() {
    local features=$1 flags=$2 count=$3 half=$((first + $3 / 2)) last=$((first + $3)) program=$4 least=$5
    local borrows pid pids=()
    shift 5
    local stacked="-Zmiri-many-seeds=$first..$half" tree="-Zmiri-many-seeds=$half..$last -Zmiri-tree-borrows"
    # Side by side: a half may have one seed, and a seed uses one core.
    for borrows in "$stacked" "$tree"; do
        [ "$count" -gt 1 ] || [ "$borrows" = "$tree" ] || continue
        echo "-- ${features:-arc-swap}: ${program##*#}, $flags $borrows"
        # shellcheck disable=SC2086
        MIRIFLAGS="-Zmiri-address-reuse-rate=1.0 $flags $borrows" \
            cargo "+$nightly" miri test --quiet --features "$features" $program -- "$@" | at_least "$least" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
}

# Each start of a program takes half a minute before its first test. Tests that are the same on both cells
# therefore run on one of them, in a run that is needed anyway.

# Runs the tests on a cell. Arguments: its features, its Miri flags; then, for the unit tests of busmap, those
# of axdevice and its suite, the minimum number of tests, and parts of the names of those that run on this cell
# only; and the minimum for the suite if all slower tests run.
cell() {
    local busmap_lib axdevice_lib suite
    read -ra busmap_lib <<<"$3"
    read -ra axdevice_lib <<<"$4"
    read -ra suite <<<"$5"
    sweep "$1" "$2" "$seeds" "$busmap --lib" "${busmap_lib[@]}" loom_tests::registry loom_tests::removal publish:: \
        --skip neighbouring_stacks --skip a_destructor_that_unwinds
    sweep "$1" "$2" "$seeds" "$axdevice --lib" "${axdevice_lib[@]}" lent:: iter:: registry
    if many; then
        sweep "$1" "$2" "$(fewer 4)" "$busmap --test registry --test vcpu --test change --test listener --test removed --test withdraw" 6 ''
        suite=("$6" "${suite[@]:1}" threads lifetimes:: leads_elsewhere)
    elif [ -n "$1" ]; then
        sweep "$1" "$2" "$(fewer 4)" "$busmap --test registry --test vcpu --test removed" 6 ''
        suite+=(lifetimes::)
    fi
    sweep "$1" "$2" "$(fewer 4)" "$axdevice --test suite" "${suite[@]}"
}

# These run until a time limit, and take the longest.
torture() {
    sweep "$1" "$2 -Zmiri-disable-isolation" "$(fewer 8)" "$axdevice --test torture" "${@:3}"
}

cell slot-cell -Zmiri-strict-provenance '53 loom_tests:: stack::tests' '13 loom_tests::ivc' '3 --skip serialized::' 10
# arc-swap makes pointers from integers on one of its paths. The flag only disables Miri's warning about it.
# parking_lot, which holds the queue of the fair lock's waiters, does the same.
cell '' -Zmiri-permissive-provenance 25 '20 fair_lock:: serialized:: context::' '10 serialized::' 19
torture slot-cell -Zmiri-strict-provenance 11 '' --skip serialized::
if many; then
    torture '' -Zmiri-permissive-provenance 13 ''
else
    torture '' -Zmiri-permissive-provenance 2 serialized::
fi
# These have one thread.
sweep slot-cell -Zmiri-strict-provenance "$((seeds < 8 ? 1 : 2))" "$busmap --lib" 72 index:: table:: tables:: registrations:: cache:: registry:: \
    removed:: vcpu:: withdraw:: a_destructor_that_unwinds neighbouring_stacks \
    --skip loom_tests:: --skip more_than_can_be_counted
echo "-- $seeds seeds from $first on, in $SECONDS s"
