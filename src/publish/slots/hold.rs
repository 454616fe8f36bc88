//! [`SlotHold`]: a reader's own count of a snapshot.

use core::ops::Deref;

use super::Snapshot;
use crate::publish::SnapshotCell;

/// A count of a snapshot of the cell behind `C`, kept from load to load. It occupies no slot.
pub(crate) struct SlotHold<C, T> {
    snapshot: Snapshot<T>,
    cell: C,
}

impl<C: Deref<Target = SnapshotCell<T>>, T> SlotHold<C, T> {
    /// Holds the current snapshot.
    pub(crate) fn new(cell: C) -> Self {
        Self {
            snapshot: cell.0.load_full(),
            cell,
        }
    }

    /// The current snapshot. One load of the cell's pointer, unless it was replaced.
    #[inline]
    pub(crate) fn load(&mut self) -> &T {
        if !self.cell.0.is_current(&self.snapshot) && !cfg!(mutant = "hold-stale") {
            self.renew();
        }
        &self.snapshot
    }

    #[cold]
    fn renew(&mut self) {
        // What is let go of here is on the retire list, so this frees nothing.
        self.snapshot = self.cell.0.load_full();
    }
}
