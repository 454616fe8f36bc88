# shellcheck shell=bash
# For `source`. Without a minimum, a run whose test-name filter matches nothing would pass.

# `at_least N`: passes on the output of test programs, and fails if one of them ran fewer than N tests.
at_least() {
    awk -v least="$1" '{ print } /^running [0-9]+ test/ { ran = 1; if ($2 < least) few = 1 }
        END { if (few || !ran) { print "error: fewer tests than " least; exit 1 } }'
}
