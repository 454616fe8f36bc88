#!/usr/bin/env bash
# Prints the instructions that an access executes, in the order of their addresses: those of at least half of the accesses.
#
# usage: benches/listing.sh SCENARIO   with a name from benches/ceilings.txt, on arc-swap's cell
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/count.sh

scenario=${1?usage: benches/listing.sh SCENARIO}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

count_on arc-swap "$out/count"
callgrind --callgrind-out-file="$out/executed" --dump-instr=yes --compress-pos=no --compress-strings=no \
    "$out/count" "$scenario" 10000 2>/dev/null
objdump -d --no-show-raw-insn "$out/count" >"$out/listing"

# The first file has a line `0xADDRESS LINE EXECUTIONS` for each instruction, after `calls=` one of the callee. The loop of
# the accesses is in `counted`.
awk '
    FNR == NR {
        if (!called && $1 ~ /^0x/) {
            executions[substr($1, 3) ":"] += $3
            if (loop && $3 > accesses) accesses = $3
        }
        called = /^calls=/
        if (/^fn=/) loop = /counted/
        next
    }
    executions[$1] > accesses / 2 {
        $1 = ""
        print $0
        n++
    }
    END { print n " instructions" }' "$out/executed" "$out/listing"
