# shellcheck shell=bash
# For `source`: the toolchain of Miri, ThreadSanitizer and the fuzzers. Its date is fixed: newer ones reject more
# code, such as the way in which parking_lot calls the kernel.
nightly=nightly-2026-05-20
