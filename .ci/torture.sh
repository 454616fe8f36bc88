#!/usr/bin/env bash
# The torture tests, for longer than in a test run, on either cell.
#
# usage: .ci/torture.sh [SECONDS]   seconds for each test (60)
set -euo pipefail
cd "$(dirname "$0")/.."

export AXDEVICE_TORTURE_SECONDS=${1:-60}
# One at a time, so that each has the machine to itself.
for features in '' slot-cell; do
    echo "-- ${features:-arc-swap}: $AXDEVICE_TORTURE_SECONDS s each"
    cargo test --release --features "$features" --test torture -- --test-threads 1
done
