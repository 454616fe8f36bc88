# shellcheck shell=bash
# To be sourced: builds the program that .ci/instructions.sh and .ci/stores.sh look at.

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
