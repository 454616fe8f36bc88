//! Every atomic of the crate, its orderings, and which tool has looked at what. Documentation only.
//!
//! # Orderings
//!
//! The names in the third column are those of the mutants: `--cfg mutant="name"` weakens the
//! ordering or leaves out the step, and the model in `loom-tests/mutants.md` fails. Where there is
//! none, the ordering is `Relaxed`, and the reason is at its place.
//!
//! ## The slot cell (`src/publish/slots`)
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | load: guess `current` | Relaxed | | only a guess, which the second look confirms |
//! | load: claim a slot | Relaxed | | its order with the second look is the fence's |
//! | load: fence | SeqCst | `load-fence` | the fence of *retire*: one of the two sees the other's write |
//! | load: second look at `current` | Acquire | `load-confirm`, `load-unconfirmed` | the publication: what the snapshot holds |
//! | load, drop of a guard: free the slot | AcqRel | `slot-free-release`, `slot-free-acquire` | releases the reads to *pay*; acquires the count that *pay* made |
//! | counted load: enter | Relaxed | | its order with the look at `current` is the fence's |
//! | counted load: fence | SeqCst | `gate-fence` | the fence of *retire* |
//! | counted load: `current` | Acquire | `load-counted` | the publication |
//! | counted load: leave | Release | `gate-leave` | the look at the gate: the count comes before it |
//! | publish: exchange `current` | AcqRel, Relaxed | `publish-release`, `publish-acquire` | loads, and the publication of what is replaced |
//! | replace: swap `current` | AcqRel | `replace-release`, `replace-acquire` | the same |
//! | retire: fence | SeqCst | `retire-fence` | the fences of loads |
//! | retire: pay | | `retire-unpaid`, `slot-count-late` | a reference is counted before the slot says so |
//! | pay: look at the slot | Acquire | `slot-scan` | the freeing of the slot: the reads come before |
//! | pay: exchange the slot | AcqRel, Acquire | `slot-pay-release`, `slot-pay-acquire`, `slot-pay-failure` | the same, and the owner's freeing of the slot |
//! | reclaim: look at the gate | Acquire | `gate-look`, `reclaim-looks-first`, `reclaim-ungated`, `reclaim-half-gated` | the leaving of counted loads |
//! | reclaim: turn the gate | Relaxed | | a hint |
//! | snapshot: count | Relaxed | | who counts has a reference, or is past the gate |
//! | snapshot: give up | Release | `snapshot-give-up` | *is last* |
//! | snapshot: is last | Acquire | `snapshot-is-last`, `reclaim-held` | the others' giving up |
//! | snapshot: drop | Release, Acquire load | `snapshot-drop-release`, `snapshot-drop-acquire` | as `Arc` |
//!
//! ## Elsewhere
//!
//! | operation | ordering | mutants | pairs with, and why |
//! |---|---|---|---|
//! | stack: push | Release, Relaxed | `stack-push` | *take*: what the node holds |
//! | stack: take | Acquire | `stack-take` | *push* |
//! | ledger: the mark of a loan | Relaxed | | a read-modify-write picks one lender; what is lent was read through the table |
//! | ids: next | Relaxed | | an id is only compared |
//! | limited log: count | Relaxed | | a count |
//! | IVC, `Serialized` | a mutex | `ivc-alloc-unlocks`, `ivc-release-unlocks` | |
//!
//! The cell for hosted targets has no atomics of its own beyond the stack: it is arc-swap's.
//!
//! # Which tool covers what
//!
//! | | slot cell | arc-swap's cell | registry, IVC, `Serialized` |
//! |---|---|---|---|
//! | loom | every model, exhaustive to the bound beside it | cannot see into it | on the slot cell |
//! | the models with real threads | yes | | on the chosen cell |
//! | Miri | models and unit tests, 16 seeds, Stacked and Tree Borrows, strict provenance | unit tests, 16 seeds, Stacked Borrows | some, in the models |
//! | the whole test suite | with `--features slot-cell` | by default | both |
//!
//! Miri is run by hand, over `publish`, `stack`, `ledger` and the models:
//!
//! ```text
//! MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-many-seeds=0..16 -Zmiri-strict-provenance" \
//!     cargo +nightly miri test --lib --features slot-cell -- publish stack:: ledger loom_tests
//! ```
//!
//! (The models leak their nodes on purpose. arc-swap makes pointers from integers, so without the
//! feature goes without the last flag.)
//!
//! loom reads `SeqCst` *accesses* as `AcqRel`, so the cell has none: it has fences, which loom
//! models. loom does not show load buffering; the cell has no place where a value out of thin air
//! could matter, since each `Relaxed` load is confirmed, only compared, or a hint. Freed addresses
//! come back in loom only because the models use two nodes again and again. Interrupts come only
//! where `step()` stands.
