# shellcheck shell=bash
# To be sourced: the toolchain of Miri, ThreadSanitizer and the fuzzers. Its date is fixed: newer ones refuse
# other things, such as how parking_lot calls the kernel.
nightly=nightly-2026-05-20
