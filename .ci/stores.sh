#!/usr/bin/env bash
# Shows, by a trace of every store and read-modify-write, that a warm dispatch by a vCPU's own handle
# writes only to the stack, which holds the handle in this program; on both cells. A dispatch without
# the handle shows that the trace finds other stores.
set -euo pipefail
cd "$(dirname "$0")/.."

source .ci/count.sh

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# The number of places outside the stack that each of 5,000 accesses writes.
written() {
    valgrind --tool=lackey --trace-mem=yes --log-fd=3 "$1" "$2" 5000 3>&1 >"$out/said" 2>"$out/failed" |
        awk -F '[ ,]+' '
            /^ [SM] / {
                # Under Valgrind the stack ends at 0x1fff001000.
                if ($3 ~ /^1ff[ef]......$/) { stack++; next }
                writes[$3]++
            }
            END {
                if (stack < 5000) { print "error: no trace"; exit 1 }
                for (at in writes) if (writes[at] >= 5000) places++
                print places + 0
            }'
}

fail=0
check() {
    local cell=$1 scenario=$2 places
    places=$(written "$out/$cell" "$scenario")
    echo "$cell, $scenario: writes $places shared places"
    test "$places" "$3" 0 || fail=1
}

for cell in arc-swap slots; do
    count_on "$cell" "$out/$cell"
    for scenario in handle-read-{hot-8,random-64-pages,port-hot-8,sys-reg-hot-8} handle-write-hot-8; do
        check "$cell" "$scenario" -eq
    done
    check $cell read-hot-8 -gt
done
[ "$fail" -eq 0 ] || { echo 'error: an access does not write the expected places' >&2; exit 1; }
