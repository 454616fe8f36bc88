//! [`Hold`]: a reader's own count of a snapshot.

use core::{mem, ops::Deref, ptr};

use super::{
    chosen::Shared,
    snapshot_cell::SnapshotCell,
    version::{NEVER, Version, is_settled},
};
use crate::sync::mutant;

/// A count of a cell's snapshot, kept from load to load. It occupies no slot.
///
/// A parked hold has a value of its own instead, so there always is one.
pub(crate) struct Hold<T> {
    snapshot: Shared<T>,
    /// The cell's version before the snapshot was loaded: the snapshot is of that version or a later one. If the
    /// version [is settled](is_settled) and the cell still has it, the snapshot is the current one.
    version: u64,
    /// The version of the cell, shared with it.
    latest: Version,
    /// The value while it is parked.
    nothing: Shared<T>,
}

impl<T> Hold<T> {
    /// A parked hold, with the value `nothing`.
    pub(crate) fn parked(cell: &SnapshotCell<T>, nothing: T) -> Self {
        let nothing = Shared::new(nothing);
        Self {
            snapshot: nothing.clone(),
            version: NEVER,
            latest: cell.version.clone(),
            nothing,
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.version == NEVER
    }

    /// Whether the snapshot is from this cell, or was before the hold was parked.
    pub(crate) fn is_of(&self, cell: &SnapshotCell<T>) -> bool {
        self.latest.is(&cell.version)
    }

    /// Whether the snapshot is the cell's current one, according to the cell itself: it may be replaced before the
    /// version shows that.
    pub(crate) fn is_current(&self, cell: &SnapshotCell<T>) -> bool {
        ptr::eq(&*cell.load(), self.snapshot())
    }

    /// Whether the snapshot is certainly the current one while the cell has the held version.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        is_settled(self.version) || mutant("hold-unsettled")
    }

    /// The snapshot.
    #[inline]
    pub(crate) fn snapshot(&self) -> &T {
        &self.snapshot
    }

    /// The held version; [`NEVER`] when parked.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The cell's version: above the held one if the snapshot was replaced, and never below it.
    #[inline]
    pub(crate) fn latest(&self) -> u64 {
        if mutant("hold-stale") && !self.is_parked() {
            return self.version;
        }
        self.latest.latest()
    }

    /// Loads a cell's current snapshot, and returns the one that it held.
    ///
    /// While the cell of the old snapshot exists, there is another count of it, and dropping it frees nothing.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<T>) -> impl Deref<Target = T> + use<T> {
        // First the version, so that `latest` shows every publication after this read.
        let early = cell.version.acquire();
        let snapshot = cell.cell.load_full();
        if !self.is_of(cell) {
            self.latest = cell.version.clone();
        }
        self.version = if mutant("hold-version-late") {
            cell.version.acquire()
        } else {
            early
        };
        mem::replace(&mut self.snapshot, snapshot)
    }

    /// Drops the snapshot.
    pub(crate) fn park(&mut self) {
        self.version = NEVER;
        self.snapshot = self.nothing.clone();
    }
}
