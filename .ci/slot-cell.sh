#!/usr/bin/env bash
# The tests of both crates on the slot cell, including those of the front end for rust-vmm.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --features slot-cell,busmap/rust-vmm
