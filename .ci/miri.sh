#!/usr/bin/env bash
# Runs the concurrent tests, and the unit tests of what has `unsafe`, under Miri on both cells. Each
# seed is another schedule, and another choice of what weak memory lets a thread read.
#
# usage: .ci/miri.sh [SEEDS [FIRST]]   SEEDS for each cell (16), from seed FIRST (0) on
#
# The first half of the seeds checks Stacked Borrows, the second half Tree Borrows. The slower tests
# of the suite get a quarter of the seeds, those of torture an eighth, those of one thread two. Leaks
# are errors. Freed addresses are used again at once, so that one that is taken for another shows.
set -euo pipefail
cd "$(dirname "$0")/.."

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

seeds=${1:-16}
# So many for the slower ones, but one for each half.
fewer() { echo $((seeds / $1 < 2 ? 2 : seeds / $1)); }
first=${2:-0}

# Runs tests on a cell: its features, its Miri flags, the number of seeds; then the test program, how
# many of its tests there are at least, and parts of their names.
sweep() {
    local features=$1 flags=$2 half=$((first + $3 / 2)) last=$((first + $3)) program=$4 least=$5
    local borrows pid pids=()
    shift 5
    local stacked="-Zmiri-many-seeds=$first..$half" tree="-Zmiri-many-seeds=$half..$last -Zmiri-tree-borrows"
    # At once: a half may have one seed, and a seed has one core.
    for borrows in "$stacked" "$tree"; do
        echo "-- ${features:-arc-swap}: $program, $flags $borrows"
        MIRIFLAGS="-Zmiri-address-reuse-rate=1.0 $flags $borrows" \
            cargo +nightly miri test --quiet --features "$features" $program -- "$@" | at_least "$least" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
}

# Passes on what tests print, and fails where it is of fewer tests: names that match nothing would pass.
at_least() {
    awk -v least="$1" '{ print } /^running [0-9]+ test/ { ran = 1; if ($2 < least) few = 1 }
        END { if (few || !ran) { print "error: fewer tests than " least; exit 1 } }'
}

# Runs what differs between the cells on one: its features, its Miri flags.
cell() {
    sweep "$1" "$2" "$seeds" --lib 28 registry removal publish:: ledger:: --skip neighbouring_stacks
    sweep "$1" "$2" "$(fewer 4)" '--test suite' 10 threads lifetimes:: leads_elsewhere --skip serialized::
    # These take their time from a clock.
    sweep "$1" "$2 -Zmiri-disable-isolation" "$(fewer 8)" '--test torture' 9 '' --skip serialized::
}

cell slot-cell -Zmiri-strict-provenance
# arc-swap makes pointers from integers on one of its paths. This only keeps Miri from warning of it.
cell '' -Zmiri-permissive-provenance
# So does parking_lot, in which the waiters of the fair lock queue up. The lock is the same with either cell.
sweep '' -Zmiri-permissive-provenance "$seeds" --lib 10 fair_lock:: serialized:: context::
sweep '' -Zmiri-permissive-provenance "$(fewer 4)" '--test suite' 9 serialized::
sweep '' '-Zmiri-permissive-provenance -Zmiri-disable-isolation' "$(fewer 8)" '--test torture' 2 serialized::
# What is the same with either cell, the slot cell by itself among it.
sweep slot-cell -Zmiri-strict-provenance "$seeds" --lib 34 loom_tests:: stack::tests threads \
    --skip registry --skip removal --skip a_destructor_that_unwinds --skip fair_lock::
# These have one thread. The skipped one does arithmetic, and much of it.
sweep slot-cell -Zmiri-strict-provenance 2 --lib 16 table:: owners:: cache:: a_destructor_that_unwinds \
    neighbouring_stacks --skip devices_at_even_distances
echo "-- $seeds seeds from $first on, in $SECONDS s"
