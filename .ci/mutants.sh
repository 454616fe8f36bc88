#!/usr/bin/env bash
# Shows that every mutant of loom-tests/mutants.md is caught by the model named there, unless an
# argument stands in its place. With names as arguments, tries these mutants only. That the same
# program's models pass without a mutant is .ci/loom.sh's to show.
set -euo pipefail
cd "$(dirname "$0")/.."

table=loom-tests/mutants.md
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUSTFLAGS='--cfg loom'
export CARGO_PROFILE_BENCH_LTO=off

# The rows of the table: mutant and model, or "argued".
rows() {
    sed -nE 's/^\| `([a-z-]+)` \| .* \| `?([a-z_:]+)`? \|$/\1 \2/p' "$table"
}

# The mutants that the source knows.
known() {
    git ls-files 'src/*.rs' | xargs grep -hoE \
        '"[a-z-]+" => (Relaxed|Acquire|Release)|step_unless!\( *"[a-z-]+"|mutant\("[a-z-]+"' |
        grep -oE '"[a-z-]+"' | tr -d '"' | sort -u
}

# Each mutant once in the table, and each of the table in the source.
diff <(known) <(rows | cut -d' ' -f1 | sort) >&2 || {
    echo "error: the mutants of the source and of $table differ" >&2
    exit 1
}

# Whether the model catches the mutant.
catches() {
    local mutant=$1 model=$2 status=0
    AXDEVICE_MUTANT=$mutant timeout --foreground 300 "$program" --exact "loom_tests::$model" >/dev/null 2>&1 || status=$?
    case $status in
        0) echo "$mutant: SURVIVED $model" ;;
        # To take long is not to be caught.
        124) echo "$mutant: no end of $model within 300 s" ;;
        *) echo "$mutant: caught by $model" && return ;;
    esac
    return 1
}
export -f catches

chosen=$(rows | while read -r mutant model; do
    [ $# -gt 0 ] && [[ " $* " != *" $mutant "* ]] || echo "$mutant $model"
done)
for mutant in $(sed -n 's/ argued$//p' <<<"$chosen"); do
    # The argument must stand there.
    grep -q "^\*\*.*\`$mutant\`" "$table" || {
        echo "error: no argument for $mutant" >&2
        exit 1
    }
    echo "$mutant: argued"
done
tried=$(grep -v ' argued$' <<<"$chosen" || true)
[ -n "$tried" ] || exit 0
program=$(cargo rustc --quiet --lib --profile bench --message-format=json |
    grep -o '"executable":"[^"]*"' | tail -n 1 | cut -d'"' -f4)
export program
xargs -P "$(nproc)" -L 1 bash -euo pipefail -c 'catches "$@"' _ <<<"$tried"
echo "$(wc -l <<<"$tried") mutants caught"
