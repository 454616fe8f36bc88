#!/usr/bin/env bash
# Each bench, once.
set -euo pipefail
cd "$(dirname "$0")/.."

# Not optimised, and in the target folder of .ci/test.sh, which has built the dependencies. The argument is for the benches
# that do not use criterion.
cargo test -p benches --benches -- --test
