//! [`SnapshotCell`]: the one place that knows how snapshots are swapped.
//!
//! A cell holds the current snapshot, a `T` behind a count. Readers [`load`](SnapshotCell::load)
//! it, any number at once, without a lock. A writer [`rcu`](SnapshotCell::rcu)s it: copies, edits,
//! publishes. The replaced snapshot goes to the cell's retire list, from which writers
//! [`reclaim`](SnapshotCell::reclaim) what no reader holds any more.
//!
//! There are two kinds of cell: on hosted targets that of `arc_swap`; on bare metal, where there
//! are no thread-locals to rely on, that of `slots`, which the feature `slot-cell` selects elsewhere
//! too.
//!
//! # Guarantees
//!
//! - A load that happens after a publication gives that snapshot or a newer one. Publications have
//!   one total order.
//! - Loading and dropping a snapshot never frees it: the retire list holds a count until
//!   a writer finds itself the last holder. So a `T` is dropped on a writer's thread, or with the
//!   cell.
//! - Nothing of the cell is held while a `T` is dropped, so that its destructor may use the cell.
//! - Loads are lock-free. So are publications, but for the allocator.

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
