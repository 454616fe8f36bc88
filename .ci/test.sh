#!/usr/bin/env bash
# All tests on the host, those of the demo and the benches among them.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --workspace
