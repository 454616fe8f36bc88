# shellcheck shell=bash disable=SC2034
# For `source`: builds the programs that .ci/loom.sh and .ci/mutants.sh run, the unit tests under loom.

# A separate target folder: the flag would rebuild everything.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUSTFLAGS='--cfg loom'
export CARGO_PROFILE_BENCH_LTO=off

# The folders of the crates that have models.
crates=(busmap .)

# `program FOLDER`: builds the program of the crate in the folder, and prints its path.
program() {
    cargo rustc --quiet -p "$(cargo pkgid --manifest-path "$1/Cargo.toml")" --lib --profile bench \
        --message-format=json | grep -o '"executable":"[^"]*"' | tail -n 1 | cut -d'"' -f4
}
