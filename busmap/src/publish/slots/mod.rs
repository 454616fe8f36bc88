//! The cell for targets without threads: loads note what they read in a table of slots.
//!
//! A load claims a free slot with the pointer that it read, and looks whether that is still the
//! current one. If so, it is protected: a writer that replaces the pointer finds it in the slot,
//! counts a reference for the reader and leaves it there. There is no thread-local, no CPU number,
//! no allocation and no lock in a load or in dropping a guard; a load may be interrupted by another
//! load on the same CPU, be preempted, and go on on another CPU.
//!
//! # Invariants
//!
//! - *One truth*: what `current` points to is published, and nothing else is.
//! - *Counted*: the cell has a reference to the current snapshot, and each entry of the retire list
//!   has one to its own.
//! - *Owned*: a slot that is not free belongs to one load, or to the guard that it became, and only
//!   that frees it. It holds `p`, a debt: no reference; or, set by a writer in its place, `p` with
//!   the mark [`PAID`]: with it the owner owns a reference to `p`.
//! - *Protected*: while a guard on `p` exists, `p` is current, or a writer that replaced it has not
//!   looked at the guard's slot yet, or the guard owns a reference.
//! - *Gated*: a snapshot is freed only if each counter of [`Gate`] was seen at zero after it was
//!   replaced. So nobody is left who read it there and has not counted it.
//!
//! # Orderings
//!
//! A slot and `current` are a store-buffering pair: the reader writes the slot and reads `current`,
//! both `SeqCst`; the writer writes `current` and reads the slot, and a `SeqCst` fence stands between.
//! If the reader comes first in the total order of the three, the writer sees the slot's debt and
//! pays it; if the writer does, the reader sees that the pointer was replaced and starts again. The
//! argument is at `sync::reader_seq_cst`. A counter of [`Gate`] and `current` are another such pair,
//! with a fence on either side.
//!
//! Every change of a slot is a read-modify-write, so that what one reader released there is
//! acquired with any later value of the slot, whoever wrote it.

pub(crate) mod cell;
pub(crate) mod counted;
mod gate;
pub(crate) mod retire;
mod slot;
