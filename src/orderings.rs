//! The atomics of this crate beyond those of [`busmap`], and their orderings. Documentation only.
//!
//! The atomics of the registry itself are in [`busmap::orderings`]. That page also lists the defects that the tools
//! detect and those that they do not: loom, Miri, ThreadSanitizer and emulation check both crates.
//!
//! The third column contains the names of mutants. The environment variable `AXDEVICE_MUTANT` selects a mutant, which
//! weakens the ordering or omits the step; the model in `loom-tests/mutants.md` must then fail. A row without a mutant
//! has the ordering `Relaxed`; a comment in the code gives the reason.
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | fair lock: take | Acquire, Relaxed | `lock-acquire` | *leave*: the accesses of earlier contexts inside |
//! | fair lock: leave | Release | `lock-release`, `lock-passes`, `lock-silent` | *take* |
//! | fair lock: count of waiters | Relaxed | | a context that misses a waiter lets another context pass it once; the waiter checks again within a millisecond |
//! | IVC | a mutex | `ivc-alloc-unlocks`, `ivc-release-unlocks` | |
//! | lent: the position of a device on the list | Relaxed | | a hint: the entry there is checked, and the list itself acquires it |
//! | limited log: count | Relaxed | | a count |
//! | redistributors: whether one is the last | Relaxed | | written before the registry is shared |
