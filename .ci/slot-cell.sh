#!/usr/bin/env bash
# The tests of both crates on the slot cell, those of the front end for rust-vmm among them.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --features slot-cell,busmap/rust-vmm
