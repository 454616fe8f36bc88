#!/usr/bin/env bash
# Formatting, clippy, documentation, and the project's own rules.
set -euo pipefail
cd "$(dirname "$0")/.."

# Fails, and prints the lines, if a file of the list (standard input) has code, not comment, that
# matches the pattern.
forbid() {
    local pattern=$1 why=$2
    if xargs -r grep -nE "$pattern" -- /dev/null | grep -vE ':[0-9]+: *//'; then
        echo "error: $why" >&2
        return 1
    fi
}

cargo fmt --all --check
(cd fuzz && cargo fmt --check)
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy --all-targets --features float-unmapped -- -D warnings
cargo clippy --all-targets --features slot-cell -- -D warnings
cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" \
    --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items

git ls-files 'src/*.rs' ':!src/sync.rs' |
    forbid 'core::sync|alloc::sync|[^a-z_]spin::' 'only src/sync.rs names the synchronisation primitives'
git ls-files 'src/*.rs' ':!src/publish/*' |
    forbid 'arc_swap' 'only src/publish names arc-swap'
git ls-files '*.rs' | forbid 'todo!|unimplemented!|#\[ignore|#!?\[allow\(' 'unfinished or silenced'
