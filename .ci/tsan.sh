#!/usr/bin/env bash
# Runs the unit tests and the models with real threads of both crates under ThreadSanitizer on both cells, and busmap/tests
# and the test suite on arc-swap, and shows first that it finds a race: a mutant of busmap's stack
# must fail under it.
#
# ThreadSanitizer ignores fences: busmap/src/orderings.rs lists the consequences.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/nightly-toolchain.sh

target=x86_64-unknown-linux-gnu
# A separate target folder: the flag would rebuild everything.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan" RUSTFLAGS=-Zsanitizer=thread
export TSAN_OPTIONS=halt_on_error=1 AXDEVICE_FEW_ROUNDS=1 BUSMAP_FEW_ROUNDS=1
build=("+$nightly" rustc -p busmap -Zbuild-std --quiet --target "$target" --features slot-cell --lib --profile test)

# The unit tests with mutants.
mutants=$(cargo "${build[@]}" --message-format=json -- --cfg mutants |
    grep -o '"executable":"[^"]*"' | tail -n 1 | cut -d'"' -f4)
report=$(BUSMAP_MUTANT=stack-push "$mutants" loom_tests::stack 2>&1 || true)
grep -q 'WARNING: ThreadSanitizer: data race' <<<"$report" || {
    echo "error: ThreadSanitizer does not see the race of the mutant stack-push" >&2
    exit 1
}
echo '-- finds the race of the mutant stack-push'

for features in slot-cell ''; do
    echo "-- ${features:-arc-swap}"
    test=("+$nightly" test -Zbuild-std --quiet --target "$target" --features "$features")
    cargo "${test[@]}" -p busmap --lib
    cargo "${test[@]}" -p "$(cargo pkgid)" --lib
done
# These on one cell, since they take minutes to build.
cargo "${test[@]}" -p busmap --tests
cargo "${test[@]}" -p "$(cargo pkgid)" --test suite --test churn -- --skip oracle:: --skip channels_are_those_of
