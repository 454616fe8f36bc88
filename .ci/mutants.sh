#!/usr/bin/env bash
# Shows that every mutant of busmap/loom-tests/mutants.md and of loom-tests/mutants.md is caught by the
# model named there, unless the table refers to a written proof instead. With names of mutants on the
# command line, tries only these. .ci/loom.sh shows that the same models pass without a mutant.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
source .ci/models.sh

# The rows of a table: mutant and model, or "argued".
rows() {
    # shellcheck disable=SC2016
    sed -nE 's/^\| `([a-z-]+)` \| .* \| `?([a-z_:]+)`? \|$/\1 \2/p' "$1"
}

# The mutants in the source of the crate in a folder.
known() {
    git ls-files "$1/src/*.rs" | xargs grep -hoE \
        '"[a-z-]+" => (Relaxed|Acquire|Release)|step_unless!\( *"[a-z-]+"|mutant\("[a-z-]+"' |
        grep -oE '"[a-z-]+"' | tr -d '"' | sort -u
}

# Whether the model of the program catches the mutant.
catches() {
    local program=$1 mutant=$2 model=$3 status=0
    BUSMAP_MUTANT=$mutant AXDEVICE_MUTANT=$mutant \
        timeout --foreground 600 "$program" --exact "loom_tests::$model" >/dev/null 2>&1 || status=$?
    case $status in
        0) echo "$mutant: SURVIVED $model" ;;
        # A timeout does not count as caught.
        124) echo "$mutant: $model does not end within 600 s" ;;
        *) echo "$mutant: caught by $model" && return ;;
    esac
    return 1
}
export -f catches

# The mutants to be tried, each with the program and the model.
tried=
for crate in "${crates[@]}"; do
    table=$crate/loom-tests/mutants.md
    # Each mutant of the source is once in the table, and each of the table is in the source.
    diff <(known "$crate") <(rows "$table" | cut -d' ' -f1 | sort) >&2 || {
        echo "error: the mutants of $crate/src and of $table differ" >&2
        exit 1
    }

    program=
    while read -r mutant model; do
        [ $# -eq 0 ] || [[ " $* " == *" $mutant "* ]] || continue
        if [ "$model" = argued ]; then
            # The table's file must contain the argument.
            grep -q "^\*\*.*\`$mutant\`" "$table" || {
                echo "error: no argument for $mutant" >&2
                exit 1
            }
            echo "$mutant: argued"
            continue
        fi
        [ -n "$program" ] || program=$(program "$crate")
        tried+="$program $mutant $model"$'\n'
    done < <(rows "$table")
done
[ -n "$tried" ] || exit 0
printf %s "$tried" | xargs -P "$(nproc)" -L 1 bash -euo pipefail -c 'catches "$@"' _
echo "$(printf %s "$tried" | wc -l) mutants caught"
