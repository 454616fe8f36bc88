#!/usr/bin/env bash
# The tests of the crate whose default policy is to float.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --features float-unmapped --lib --test suite
