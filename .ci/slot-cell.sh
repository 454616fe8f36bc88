#!/usr/bin/env bash
# The tests of both crates on the slot cell.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --features slot-cell
