#!/usr/bin/env bash
# The tests of axdevice with `Float` as the default policy. busmap has no policy.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test -p "$(cargo pkgid)" --features float-unmapped --lib --test suite
