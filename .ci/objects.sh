#!/usr/bin/env bash
# Shows, on the object file for bare-metal aarch64, that a load of the slot cell and the drop of its
# guard use no allocator, no lock and no thread-local: they call only the slow path of a load.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-none-softfloat
export RUSTFLAGS='--cfg object_code -D warnings'
# It shares the dependencies of .ci/thread-locals.sh: run only one of the two at a time.
out=${CARGO_TARGET_DIR:-target}/bare-metal
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
CARGO_TARGET_DIR=$out cargo rustc -p busmap --quiet --release --lib --target $target -- \
    --emit obj -C codegen-units=1
# shellcheck disable=SC2012
object=$(ls -t "$out/$target"/release/deps/busmap-*.o | head -n 1)
listing=$(aarch64-linux-gnu-objdump --disassemble --reloc --demangle "$object")

# The body of the function whose name matches.
body() {
    awk -v name="$1" '/^[0-9a-f]+ <.*>:$/ { on = $0 ~ name } on' <<<"$listing"
}

# All calls of a body, and all its reads through the thread pointer.
calls() {
    { body "$1" | grep -oE 'R_AARCH64_(CALL26|JUMP26|TLS[A-Z0-9_]*)[[:space:]]+[^[:space:]].*|\bblr\b.*|tpidr_el[0-3]' || true; } |
        sed -E 's/R_AARCH64_[A-Z0-9_]+[[:space:]]+//' | sort -u
}

fail=0
for function in busmap_load busmap_drop load_otherwise load_counted; do
    instructions=$(body "$function" | grep -cE '^ +[0-9a-f]+:' || true)
    if [ "$instructions" -eq 0 ]; then
        # The slow path of a load may be inlined, or whole; the other functions must be there.
        [[ $function == load_* ]] && continue
        echo "error: no $function in the object file" >&2
        exit 1
    fi
    found=$(calls "$function" | grep -vE 'load_(otherwise|counted)' || true)
    echo "$function: $instructions instructions, calls: ${found:-nothing}"
    [ -z "$found" ] || fail=1
done
[ "$fail" -eq 0 ] || { echo 'error: a load or the drop of its guard makes a forbidden call' >&2; exit 1; }
