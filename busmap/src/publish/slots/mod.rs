//! The cell for targets without threads: loads note what they read in a table of slots.
//!
//! A load notes the pointer that it read in a free slot, and looks whether that is still the current
//! one. If so, the snapshot is protected: a sweep that finds the pointer in the slot keeps it. There
//! is no thread-local, no CPU number, no allocation and no lock in a load or in dropping a guard; a
//! load may be interrupted by another load on the same CPU, be preempted, and go on on another CPU.
//! Where no slot is free, a load counts a reference instead.
//!
//! # Invariants
//!
//! - *One truth*: what `current` points to is published, and nothing else is.
//! - *Counted*: the cell has a reference to the current snapshot, and each entry of the retire list
//!   has one to its own.
//! - *Owned*: a slot that is not free belongs to one load, or to the guard that it became, and only
//!   that writes to it.
//! - *Protected*: while a guard on `p` exists, its slot holds `p`, which was current at some time
//!   since; or the guard has a reference.
//! - *Noted*: a snapshot is freed only if each slot was seen without it after it was replaced. So no
//!   guard has it in a slot, and none ever will.
//! - *Gated*: a snapshot is freed only if each counter of [`Gate`](gate::Gate) was seen at zero after
//!   it was replaced. So no load is left that has read it inside the gate and has not counted it.
//!
//! # Orderings
//!
//! A slot and `current` are a store-buffering pair: the reader writes the slot and reads `current`,
//! both `SeqCst`; a writer writes `current`, a sweep, which comes after that, reads the slot, and a
//! `SeqCst` fence of the sweep stands between. If the reader comes first in the total order of the
//! three, the sweep sees the pointer in the slot; if the fence does, the reader sees that the pointer
//! was replaced, clears the slot and starts again. The argument is at `sync::reader_seq_cst`. A
//! counter of the gate and `current` are another such pair, with a fence on the reader's side too, and
//! the same fence of the sweep. So a sweep takes the entries, then has the fence, and looks at the
//! gate and the slots after it.
//!
//! A guard that counts a reference of its own does so before it clears its slot, and a sweep looks at
//! the slots before the count: it finds the one or the other.
//!
//! A pointer that was read, not yet noted, may be freed, and be another snapshot's by the time of the
//! second look. Then that one is current, and noted: what is compared is the address, and what is
//! used is what the second look gave.

pub(crate) mod cell;
pub(crate) mod counted;
mod gate;
pub(crate) mod retire;
mod slot;
