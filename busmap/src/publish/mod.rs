//! [`SnapshotCell`]: the only code that knows how snapshots are exchanged.
//!
//! A cell holds the current snapshot, a `T` behind a count. Readers [`load`](SnapshotCell::load)
//! it, any number at once, without a lock. A writer calls [`rcu`](SnapshotCell::rcu), which copies,
//! edits and publishes it. The replaced snapshot goes to the cell's retire list, from which writers
//! [`reclaim`](SnapshotCell::reclaim) the snapshots that no reader holds any more.
//!
//! There are two kinds of cell: `arc_swap` on hosted targets; `slots` on bare metal, where there
//! are no thread-locals to rely on. The feature `slot-cell` selects `slots` on hosted targets too.
//!
//! # Guarantees
//!
//! - A load that happens after a publication returns that snapshot or a newer one. Publications
//!   have one total order.
//! - Loading and dropping a snapshot never frees it: the retire list holds a count until a writer
//!   finds that it is the last holder. So a `T` is dropped on a writer's thread, or with the cell.
//! - A thread that drops a `T` holds no part of the cell, so the destructor may use the cell.
//! - Loads are lock-free. So are publications, except for the allocator.

#[cfg(not(any(target_os = "none", loom, feature = "slot-cell")))]
mod arc_swap;
mod chosen;
mod hold;
#[cfg(any(test, target_os = "none", loom, feature = "slot-cell"))]
pub(crate) mod slots;
mod snapshot_cell;
mod version;

pub(crate) use self::{
    chosen::RetireList, hold::Hold, snapshot_cell::SnapshotCell, version::NEVER,
};
