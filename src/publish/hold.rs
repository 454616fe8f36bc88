//! [`Hold`]: a reader's own count of a snapshot.

use core::ptr;

use crossbeam_utils::CachePadded;

use super::{SnapshotCell, chosen::Snapshot};
use crate::sync::{Arc, AtomicU64, Ordering, ordering};

/// How often a cell has published, the first snapshot counted in: 64 bits, which do not come round.
/// In a place of its own, where holds can look without the cell.
pub(super) struct Version(Arc<CachePadded<AtomicU64>>);

impl Version {
    /// A cell's first.
    pub(super) fn first() -> Self {
        Self(Arc::new(CachePadded::new(AtomicU64::new(NEVER + 1))))
    }

    /// Tells of a publication, and releases it: who acquires the version, and then loads, gets that
    /// snapshot or a later one.
    pub(super) fn next(&self) {
        (self.0).fetch_add(1, ordering!(Release, "version-release" => Relaxed));
    }
}

/// A count of a cell's snapshot, kept from load to load. It occupies no slot.
///
/// Parked it has a value of its own instead, so that there always is one.
pub(crate) struct Hold<T> {
    snapshot: Snapshot<T>,
    /// The cell's version before the snapshot was loaded, which is that version's or a later one's.
    version: u64,
    /// The cell's.
    latest: Version,
    /// What is there when it is parked.
    nothing: Snapshot<T>,
}

/// Below every cell's version: a parked hold's.
pub(crate) const NEVER: u64 = 0;

impl<T> Hold<T> {
    /// Parked, with `nothing` there.
    pub(crate) fn parked(cell: &SnapshotCell<T>, nothing: T) -> Self {
        let nothing = Snapshot::new(nothing);
        Self {
            snapshot: nothing.clone(),
            version: NEVER,
            latest: Version(cell.version.0.clone()),
            nothing,
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.version == NEVER
    }

    /// Whether the snapshot is, or when parked was, this cell's.
    pub(crate) fn is_of(&self, cell: &SnapshotCell<T>) -> bool {
        Arc::ptr_eq(&self.latest.0, &cell.version.0)
    }

    /// Whether the snapshot is the cell's current one, by the cell itself: it may be replaced before
    /// the version tells of that.
    pub(crate) fn is_current(&self, cell: &SnapshotCell<T>) -> bool {
        ptr::eq(&*cell.load(), self.snapshot())
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
    ///
    /// `Relaxed`: a version is only compared. Versions only grow, and have one order (read-read
    /// coherence): so who was told of a publication finds its version here, or a later one.
    #[inline]
    pub(crate) fn latest(&self) -> u64 {
        if cfg!(mutant = "hold-stale") && !self.is_parked() {
            return self.version;
        }
        self.latest.0.load(Ordering::Relaxed)
    }

    /// Takes a cell's current snapshot.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<T>) {
        // First the version, so that what is published after it was read shows in `latest`.
        let version = || (cell.version.0).load(ordering!(Acquire, "hold-acquire" => Relaxed));
        let early = version();
        let snapshot = cell.cell.load_full();
        if !self.is_of(cell) {
            self.latest = Version(cell.version.0.clone());
        }
        self.version = if cfg!(mutant = "hold-version-late") {
            version()
        } else {
            early
        };
        // Somebody else has a count of what is let go of, while its cell lives: this frees nothing.
        self.snapshot = snapshot;
    }

    /// Lets go of the snapshot.
    pub(crate) fn park(&mut self) {
        self.version = NEVER;
        self.snapshot = self.nothing.clone();
    }
}
