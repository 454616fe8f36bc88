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
/// Parked it has a value of its own instead, so that there always is one.
pub(crate) struct Hold<T> {
    snapshot: Shared<T>,
    /// The cell's version before the snapshot was loaded, which is that version's or a later one's.
    /// If the version [is settled](is_settled) and still the cell's, the snapshot is the current one.
    version: u64,
    /// The cell's.
    latest: Version,
    /// The value while it is parked.
    nothing: Shared<T>,
}

impl<T> Hold<T> {
    /// Parked, with `nothing` there.
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

    /// Whether the snapshot is, or when parked was, this cell's.
    pub(crate) fn is_of(&self, cell: &SnapshotCell<T>) -> bool {
        self.latest.is(&cell.version)
    }

    /// Whether the snapshot is the cell's current one, according to the cell itself: it may be replaced before the
    /// version shows that.
    pub(crate) fn is_current(&self, cell: &SnapshotCell<T>) -> bool {
        ptr::eq(&*cell.load(), self.snapshot())
    }

    /// Whether the snapshot is the current one for sure if the cell's version is the one that it holds.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        is_settled(self.version) || mutant("hold-unsettled")
    }

    /// The snapshot.
    #[inline]
    pub(crate) fn snapshot(&self) -> &T {
        &self.snapshot
    }

    /// The version that it holds; [`NEVER`] when parked.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The cell's version: above that which it holds if the snapshot was replaced, and never below.
    #[inline]
    pub(crate) fn latest(&self) -> u64 {
        if mutant("hold-stale") && !self.is_parked() {
            return self.version;
        }
        self.latest.latest()
    }

    /// Takes a cell's current snapshot, and gives the one that it held.
    ///
    /// While the old one's cell lives, something else has a count of it, and dropping it frees nothing.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<T>) -> impl Deref<Target = T> + use<T> {
        // First the version, so that what is published after it was read shows in `latest`.
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
