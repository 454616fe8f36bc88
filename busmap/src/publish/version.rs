//! [`Version`]: how often a cell has published.

use crossbeam_utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Ordering, ordering};

/// Below every cell's version: a parked hold's.
pub(crate) const NEVER: u64 = 0;

/// How often a cell has published, the first snapshot counted in: 64 bits, which do not come round.
/// In a place of its own, where holds can look without the cell.
#[derive(Clone)]
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

    /// The number of publications, to be acquired before a load: see [`next`](Self::next).
    pub(super) fn acquire(&self) -> u64 {
        self.0.load(ordering!(Acquire, "hold-acquire" => Relaxed))
    }

    /// The number of publications.
    ///
    /// `Relaxed`: a version is only compared. Versions only grow, and have one order (read-read
    /// coherence): so who was told of a publication finds its version here, or a later one.
    #[inline]
    pub(super) fn latest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether both are the same cell's.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
