#!/usr/bin/env bash
# Shows that every mutant of loom-tests/mutants.md is caught by the model named there, unless an
# argument stands in its place. With names as arguments, tries these mutants only.
set -euo pipefail
cd "$(dirname "$0")/.."

table=loom-tests/mutants.md
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUSTFLAGS='--cfg loom'

# The rows of the table: mutant and model, or "argued".
rows() {
    sed -nE 's/^\| `([a-z-]+)` \| .* \| `?([a-z_:]+)`? \|$/\1 \2/p' "$table"
}

# The mutants that the source knows.
known() {
    git ls-files 'src/*.rs' | xargs grep -hoE \
        '"[a-z-]+" => (Relaxed|Acquire|Release)|step_unless!\( *"[a-z-]+"|mutant = "[a-z-]+"' |
        grep -oE '"[a-z-]+"' | tr -d '"' | sort -u
}

# Each mutant once in the table, and each of the table in the source.
diff <(known) <(rows | cut -d' ' -f1 | sort) >&2 || {
    echo "error: the mutants of the source and of $table differ" >&2
    exit 1
}

# The test program, built with these flags for the crate alone.
build() {
    cargo rustc --quiet --lib --profile bench --message-format=json -- "$@" |
        grep -o '"executable":"[^"]*"' | tail -n 1 | cut -d'"' -f4
}

sound=$(build)
declare -A passes
caught=0 survived=0 argued=0
while read -r mutant model; do
    [ $# -eq 0 ] || [[ " $* " == *" $mutant "* ]] || continue
    if [ "$model" = argued ]; then
        # The argument must stand there.
        grep -q "^\*\*.*\`$mutant\`" "$table" || {
            echo "error: no argument for $mutant" >&2
            exit 1
        }
        argued=$((argued + 1))
        continue
    fi
    # A model that fails anyway would catch everything.
    if [ -z "${passes[$model]:-}" ]; then
        "$sound" --exact "loom_tests::$model" >/dev/null 2>&1 || {
            echo "error: $model fails without any mutant" >&2
            exit 1
        }
        passes[$model]=1
    fi
    program=$(build --cfg "mutant=\"$mutant\"")
    if timeout 300 "$program" --exact "loom_tests::$model" >/dev/null 2>&1; then
        echo "$mutant: SURVIVED $model"
        survived=$((survived + 1))
    else
        echo "$mutant: caught by $model"
        caught=$((caught + 1))
    fi
done < <(rows)
echo "$caught mutants caught, $argued argued, $survived survived"
[ "$survived" -eq 0 ]
