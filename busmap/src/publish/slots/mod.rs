//! The cell for targets without threads: loads note the pointer that they read in a table of slots.
//!
//! A load notes the pointer that it read in a free slot, and checks whether it is still the current one. If so, the
//! snapshot is protected: a sweep that finds the pointer in the slot keeps it. A load, and the drop of a guard, use no
//! thread-local, CPU number, allocation or lock. A load may be interrupted by another load on the same CPU, be
//! preempted, and continue on another CPU. If no slot is free, a load counts a reference instead.
//!
//! # Invariants
//!
//! - *One truth*: the published snapshot is the one that `current` points to, and no other.
//! - *Counted*: the cell has a reference to the current snapshot, and each entry of the retire list has one to its
//!   snapshot.
//! - *Owned*: a slot that is not free belongs to one load, or to the guard that it became, and only that owner writes
//!   to it.
//! - *Protected*: while a guard on `p` exists, its slot holds `p`, which was current at some time after it was noted;
//!   or the guard has a reference.
//! - *Noted*: a snapshot is freed only if each slot was seen without it after it was replaced. So no
//!   guard has it in a slot, and none ever will.
//! - *Gated*: a snapshot is freed only if each counter of [`Gate`](gate::Gate) was seen at zero after
//!   it was replaced. So no load is left that has read it inside the gate and has not counted it.
//!
//! # Orderings
//!
//! A slot and `current` are a store-buffering pair. The reader writes the slot and reads `current`, both `SeqCst`. A
//! writer writes `current`; a later sweep executes a `SeqCst` fence, then reads the slot. If the reader comes first in
//! the total order of the three, the sweep sees the pointer in the slot; if the fence does, the reader sees that the
//! pointer was replaced, clears the slot and starts again. The argument is at `sync::reader_seq_cst`. A counter of the
//! gate and `current` are another such pair, with a fence on the reader's side too, and the same fence of the sweep. So
//! a sweep takes the entries, then executes the fence, then looks at the gate and the slots.
//!
//! An owned load counts a reference before its guard clears the slot, and a sweep looks at the slots before the count:
//! it finds one of the two.
//!
//! A snapshot may be freed after its pointer was read and before it is noted, and another snapshot may have its address
//! at the second look. Then that snapshot is current, and noted: the load compares addresses, and uses the pointer that
//! the second look returned.

pub(crate) mod cell;
pub(crate) mod counted;
mod gate;
pub(crate) mod retire;
mod slot;
