//! Every atomic of the crate, its orderings, and the tools that check it. Documentation only.
//!
//! # Orderings
//!
//! The third column names mutants. `BUSMAP_MUTANT` selects one: its ordering is weakened, or its step left out, and the
//! model in `loom-tests/mutants.md` fails. An operation without a mutant is `Relaxed`, for the reason that a comment in
//! the code gives.
//!
//! ## The slot cell (`src/publish/slots`)
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | load: guess `current` | Relaxed | | only a guess, which the second look confirms |
//! | load: claim a slot | SeqCst; under loom Acquire | `slot-claim` | with the second look: the fence of *reclaim*. One of the two sides sees the other's write. Acquires what earlier owners released in *clear*, for the next one to release |
//! | load: fence | none; under loom SeqCst | `load-fence` | the same: see `reader_seq_cst` in `src/sync/native.rs` |
//! | load: second look at `current` | SeqCst; under loom Acquire | `load-confirm`, `load-unconfirmed` | the same, and the publication: the content of the snapshot |
//! | load, drop of a guard: clear the slot | Release | `slot-clear` | *reclaim: look at the slots*: the reads come before, and the count of an owned load |
//! | counted load: enter | Relaxed | | its order with the look at `current` is the fence's |
//! | counted load: fence | SeqCst | `gate-fence` | the fence of *reclaim* |
//! | counted load: `current` | Acquire | `load-counted` | the publication |
//! | counted load: leave | Release | `gate-leave` | the look at the gate: the count comes before it |
//! | publish: exchange `current` | Release, Relaxed | `publish-release` | loads |
//! | replace: swap `current` | AcqRel | `replace-release`, `replace-acquire` | loads, and the publication of the replaced snapshot |
//! | owned load: count before the guard is dropped | | `hold-late` | the reference is counted while the guard protects it |
//! | reclaim: fence | SeqCst | `reclaim-fence`, `reclaim-fence-late` | the claims and second looks of loads, the fences of counted loads. Between the taking of the entries and the looks at the gate and the slots |
//! | reclaim: look at the gate | Acquire | `gate-look`, `reclaim-looks-first`, `reclaim-ungated`, `reclaim-half-gated` | the leaving of counted loads |
//! | reclaim: look at the slots | Acquire | `slot-noted`, `reclaim-noted`, `reclaim-counts-first` | the clearing of the slot; before the look at the count |
//! | reclaim: turn the gate | Relaxed | | a hint |
//! | snapshot: count | Relaxed | | the counting thread has a reference or a slot, or is inside the gate |
//! | snapshot: give up | Release | `snapshot-give-up` | *is last* |
//! | snapshot: is last | Acquire | `snapshot-is-last`, `reclaim-held` | the others' giving up |
//! | snapshot: drop | Release, Acquire load | `snapshot-drop-release`, `snapshot-drop-acquire` | as `Arc` |
//!
//! ## The hold, on either cell (`src/publish/hold.rs`)
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | publish: announce it in the version | Relaxed | `begin-late` | first, so that a thread that has seen the publication sees the announcement (coherence) |
//! | publish: the next version | Release | `version-release` | *renew*: the publication comes before |
//! | renew: look at the version | Acquire | `hold-acquire`, `hold-version-late` | the same; and first, so that a later publication shows |
//! | look whether the version is the same | Relaxed | `hold-stale`, `hold-unsettled` | only compared: versions only grow |
//!
//! ## The registry
//!
//! The mutants that weaken no ordering: `rcu-unchecked`, `removed-early`, `move-by-way-of`, `update-in-steps`,
//! `handle-trusts`. For changes that a listener observes, whose turns a lock orders: `turns-at-once`, `told-late`,
//! `told-behind`.
//!
//! ## Elsewhere
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | stack: push | Release, Relaxed | `stack-push` | *take*: the content of the nodes |
//! | stack: take, also by a push onto a stack that is not empty | Acquire | `stack-take` | *push* |
//! | removed: count of the entries in tables | Relaxed (in `Arc`), Acquire fence | `removed-fence` | the drop of the tables: accesses of vCPUs to the device happen before |
//! | ids: next | Relaxed | | an id is only compared |
//!
//! The cell for hosted targets is arc-swap's. The crate adds only the atomics of the stack and the version.
//!
//! # Coverage of each tool
//!
//! | | slot cell | arc-swap's cell | registry |
//! |---|---|---|---|
//! | loom | every model, exhaustive to the bound beside it | cannot see into it | on the slot cell |
//! | the models with real threads | yes | | on the chosen cell |
//! | Miri (`.ci/miri.sh`) | models and tests with threads; Stacked and Tree Borrows, strict provenance | the same, except strict provenance | models and tests with threads |
//! | ThreadSanitizer (`.ci/tsan.sh`) | models, unit tests | the same, `busmap/tests` and the test suite | the same |
//! | the whole test suite | with `--features slot-cell` | by default | both |
//!
//! Miri's seeds are samples: each is one schedule, and one choice of the values that weak memory allows each load to
//! return. Both code with `unsafe` and code with threads is sampled. The slot cell has 8 slots there, so the fallback
//! is sampled too. Leaks are errors: the models keep the nodes that they never free reachable from a static. If a load
//! loses a race with a writer, arc-swap makes a pointer from an integer, which strict provenance forbids. Under either
//! borrow model, Miri permits such a pointer every access that some pointer that was cast to an integer permits. So it
//! could miss an access by the wrong pointer. Neither run includes the property tests against 0.4.10, which have no
//! threads.
//!
//! ThreadSanitizer observes real threads on this machine's memory, and does not model fences. So it does not check the
//! two store-buffering pairs, whose accesses are atomic and never a data race by themselves; loom and Miri do. It would
//! report a race between accesses that only a fence orders. So no acquire or release fence orders anything alone here:
//! the last drop of a snapshot has an acquire load. The mutant `stack-push` must fail under ThreadSanitizer: this shows
//! that it detects such errors.
//!
//! Emulation (`.ci/emulated.sh`) runs the models on code for AArch64, with exclusive loads and stores and with the
//! atomic instructions of ARMv8.1. On an x86 host this shows that the code works, but nothing about weak memory,
//! because the host keeps its own, stronger order: on x86_64 the mutants `publish-release`, `stack-push`, `load-fence`
//! and `reclaim-fence` all pass under it, and `reclaim-noted`, which needs no reordering, fails. Loom and Miri check
//! weak memory; no test has run on AArch64 hardware.
//!
//! loom treats `SeqCst` *accesses* as `AcqRel`. The cell has two, in a load; under loom a fence between them replaces
//! them, which loom models. Miri checks the two accesses as they ship. loom does not model load buffering. An
//! out-of-thin-air value would do no harm in the cell, because each `Relaxed` load is confirmed, only compared, or a
//! hint. Freed addresses are used again in loom only because the models use two nodes repeatedly. Miri uses addresses
//! again at once, so it detects a pointer to a freed object even if another object has the address. Interrupts occur
//! only at `step()`.
