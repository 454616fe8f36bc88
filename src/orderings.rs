//! The atomics of this crate beyond those of [`busmap`], and their orderings. Documentation only.
//!
//! The registry's own are in [`busmap::orderings`], and so is what the tools see and do not see: loom,
//! Miri, ThreadSanitizer and emulation look at both crates.
//!
//! The names in the third column are those of the mutants: `AXDEVICE_MUTANT` names one, which has the
//! ordering weakened or the step left out, and the model in `loom-tests/mutants.md` fails. Where there
//! is none, the ordering is `Relaxed`, and the reason is at its place.
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | fair lock: take | Acquire, Relaxed | `lock-acquire` | *leave*: what the contexts before did inside |
//! | fair lock: leave | Release | `lock-release`, `lock-passes`, `lock-silent` | *take* |
//! | fair lock: count of waiters | Relaxed | | a context that misses a waiter lets another pass it once; the waiter looks again within a millisecond |
//! | IVC | a mutex | `ivc-alloc-unlocks`, `ivc-release-unlocks` | |
//! | lent: where a device is on the list | Relaxed | | a hint: what it leads to is looked at, and acquired by the list itself |
//! | limited log: count | Relaxed | | a count |
//! | redistributors: which is the last | Relaxed | | written before the registry is shared |
