#!/usr/bin/env bash
# All tests on the host, including those of the demo and the benches.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --workspace
