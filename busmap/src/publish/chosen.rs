//! The kind of cell that this target has.

#[cfg(not(any(target_os = "none", loom, feature = "slot-cell")))]
mod kind {
    use super::super::arc_swap;

    pub(crate) type Shared<T> = crate::sync::Arc<T>;
    pub(crate) type Cell<T> = arc_swap::ArcSwapCell<T>;
    pub(crate) type SnapshotGuard<'c, T> = arc_swap::ArcSwapGuard<T>;
    pub(crate) type RetireList<T> = arc_swap::ArcRetireList<T>;
}

#[cfg(any(target_os = "none", loom, feature = "slot-cell"))]
mod kind {
    use super::super::slots::{cell, counted, retire};

    pub(crate) type Shared<T> = counted::CountedBox<T>;
    pub(crate) type Cell<T> = cell::SlotCell<Shared<T>>;
    pub(crate) type SnapshotGuard<'c, T> = cell::SlotGuard<'c, Shared<T>>;
    pub(crate) type RetireList<T> = retire::SlotRetireList<Shared<T>, { cell::SLOTS }>;
}

/// The cell itself.
pub(super) use self::kind::Cell;
/// The snapshots that a cell has replaced. The list may outlive the cell.
pub(crate) use self::kind::RetireList;
/// A snapshot with a count that the holder owns.
pub(super) use self::kind::Shared;
/// Protects a snapshot from being freed until it is dropped.
pub(crate) use self::kind::SnapshotGuard;
