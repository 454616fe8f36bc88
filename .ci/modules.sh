#!/usr/bin/env bash
# Prints the files that each file of the two crates uses, and fails on an import circle, between files
# or between folders; shows first that it finds one.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 .ci/modules.py --self-test busmap/src src
python3 .ci/modules.py busmap/src src
