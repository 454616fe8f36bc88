#!/usr/bin/env bash
# Formatting, clippy on the host, the Python, documentation with its links and words, and the one rule that no lint
# checks.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
(cd fuzz && cargo fmt --check)
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy --all-targets --features slot-cell -- -D warnings
cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" \
    --all-targets -- -D warnings
git ls-files -z '*.py' | xargs -0 pyflakes3
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
.ci/links.sh
.ci/words.sh
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --features busmap/rust-vmm

# No test is ignored. clippy's ignore_without_reason would permit one that has a reason.
if git grep --untracked -nE '^[[:space:]]*#\[(cfg_attr\(.*)?ignore\b' -- '*.rs'; then
    echo 'error: an ignored test' >&2
    exit 1
fi
