#!/usr/bin/env bash
# Counts the instructions of one access in each scenario, and fails where there are more than
# benches/ceilings.txt allows. With --write, replaces the ceilings by the counts.
#
# The count of an access is the difference of two runs, so it contains accesses only.
set -euo pipefail
cd "$(dirname "$0")/.."

source .ci/count.sh

ceilings=benches/ceilings.txt
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# The instructions of this number of accesses, and of the start and end of the program.
instructions() {
    local binary=$1 scenario=$2 accesses=$3 log=$out/callgrind.log
    if ! callgrind --callgrind-out-file=/dev/null "$binary" "$scenario" "$accesses" 2>"$log"; then
        cat "$log" >&2
        return 1
    fi
    awk '/Collected :/ { print $4 }' "$log"
}

count() {
    local cell=$1 binary=$out/$1 scenario scenarios some more
    count_on "$cell" "$binary"
    scenarios=$("$binary")
    # Through a handle the cell makes no difference.
    [ "$cell" = arc-swap ] || scenarios=$(grep -v '^handle-' <<<"$scenarios")
    for scenario in $scenarios; do
        some=$(instructions "$binary" "$scenario" 1000)
        more=$(instructions "$binary" "$scenario" 2000)
        awk -v cell="$cell" -v scenario="$scenario" -v n="$((more - some))" \
            'BEGIN { printf "%-9s %-42s %6.1f\n", cell, scenario, n / 1000 }'
    done
}

{
    count arc-swap
    count slots
} >"$out/counted"

if [ "${1-}" = --write ]; then
    {
        echo '# Instructions of one access, at most: .ci/instructions.sh counts them.'
        cat "$out/counted"
    } >"$ceilings"
fi

# Each scenario that was counted must have a ceiling, and each ceiling its scenario.
awk '
    /^#/ { next }
    { key = $1 " " $2 }
    FNR == NR { ceiling[key] = $3; next }
    {
        verdict = !(key in ceiling) ? "has no ceiling" : $3 + 0 <= 0 ? "counted nothing" : \
            $3 > ceiling[key] + 0 ? "exceeds its ceiling" : "ok"
        printf "%-9s %-42s %6.1f of %6.1f %s\n", $1, $2, $3, ceiling[key], verdict
        failed = failed || verdict != "ok"
        delete ceiling[key]
    }
    END {
        for (key in ceiling) { print key ": was not counted"; failed = 1 }
        exit failed
    }' "$ceilings" "$out/counted"
