# shellcheck shell=bash
# To be sourced: the toolchain of Miri, ThreadSanitizer and the fuzzers. Its date is fixed: newer ones refuse
# more, such as the way in which parking_lot calls the kernel.
nightly=nightly-2026-05-20
