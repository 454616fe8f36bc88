# shellcheck shell=bash
# For `source`: builds and measures the program that .ci/instructions.sh, .ci/stores.sh and benches/listing.sh inspect.

# `count_on CELL FILE`: the program `count` on a cell, `arc-swap` or `slots`, as the file. One script at a
# time, because cargo gives it the same name on either cell.
count_on() {
    local cell=$1 file=$2 folder=${CARGO_TARGET_DIR:-target} features=
    [ "$cell" = arc-swap ] || features=slot-cell
    mkdir -p "$folder"
    (
        flock 9
        cargo build --quiet --profile bench -p benches --bin count --features "$features"
        cp "$folder/release/count" "$file"
    ) 9>"$folder/count.lock"
}

# Counts the instructions of the accesses alone. Arguments: further options of callgrind, the program and its arguments.
callgrind() {
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='count::counted*' "$@"
}
