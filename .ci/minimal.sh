#!/usr/bin/env bash
# Shows that the lowest versions of the direct dependencies that the manifests allow are sufficient: checks
# the workspace and the fuzz targets with them, and tests the crates.
#
# Indirect dependencies have their newest versions: their lowest versions concern only the direct dependencies.
# It works on a copy in the target folder, and does not change the committed lock files.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/minimal")
export CARGO_TARGET_DIR
copy=$CARGO_TARGET_DIR/copy
rm -rf "$copy"
mkdir -p "$copy"
# Keeps the times of the files, so that cargo rebuilds only changed packages.
git ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from - | tar --extract --directory "$copy"
cd "$copy"

# The dependencies in the manifests, each with the lowest version that it may have.
floors() {
    awk '/^\[/ { within = /dependencies\]$/ } within && /"=?[0-9]/ && !/path = /' "$@" |
        sed -E 's/^(\S+) = \{ package = "([^"]+)",/\2 = {/; s/^(\S+) = [^"]*"=?([0-9.]+)".*/\1 v\2/' |
        sed -E 's/ v[0-9]+$/&.0/; s/ v[0-9]+\.[0-9]+$/&.0/' | sort -u
}

# The dependencies as they are built.
locked() {
    cargo tree --locked --workspace --target all --depth 1 --prefix none |
        sed -nE '/ \(\//d; s/^(\S+ v[^ +]+).*/\1/p' | sort -u
}

# Makes the lock file of the workspace in this folder, and shows that it has the lowest versions of the
# manifests.
lock_lowest() {
    rm Cargo.lock
    # An unstable option. It is run with the pinned cargo too, so the versions fit the pinned compiler.
    RUSTC_BOOTSTRAP=1 cargo generate-lockfile --quiet -Z direct-minimal-versions
    # Yanked from the registry, so no new lock file gets it; the lock file of Axvisor 0.5.8 has it.
    if grep -q '^spin = ' "$@"; then
        cargo update --quiet spin@0.10.1 --precise 0.10.0
    fi
    diff <(floors "$@") <(locked) >&2 || {
        echo 'error: the lowest versions (<) differ from the built versions (>)' >&2
        exit 1
    }
    echo "-- $(floors "$@" | wc -l) direct dependencies at their lowest"
}

# A member names a version only where it differs from the workspace's.
lock_lowest Cargo.toml tests/rust-vmm/Cargo.toml
cargo check --locked --quiet --workspace --all-targets
cargo test --locked --quiet -p busmap --tests
cargo test --locked --quiet -p "$(cargo pkgid)" --lib --test suite
# The slot cell has other dependencies.
cargo test --locked --quiet --features slot-cell -p busmap --lib

cd fuzz
lock_lowest Cargo.toml
cargo check --locked --quiet --all-targets
