//! [`Version`]: how often a cell has published, and whether it is about to.

use crossbeam_utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Ordering, ordering};

/// Below every cell's version: a parked hold's.
pub(crate) const NEVER: u64 = 0;

/// How many low bits of a version count the publications that are under way.
const UNDER_WAY_BITS: u32 = 12;

/// The number of publications of a cell, the first snapshot included, and how many are under way now: begun,
/// and not yet completed. In a place of its own, where holds can look without the cell.
///
/// 52 bits count publications, which no machine makes; 12 count threads that are inside one.
#[derive(Clone)]
pub(super) struct Version(Arc<CachePadded<AtomicU64>>);

/// Whether no publication was under way at this version.
pub(super) const fn is_settled(version: u64) -> bool {
    version & ((1 << UNDER_WAY_BITS) - 1) == 0
}

impl Version {
    /// A cell's first.
    pub(super) fn first() -> Self {
        let first = NEVER + (1 << UNDER_WAY_BITS);
        Self(Arc::new(CachePadded::new(AtomicU64::new(first))))
    }

    /// Announces a publication, or an attempt at one, which comes next.
    ///
    /// `Relaxed`: a thread that learns of the publication by any synchronisation has the version from before
    /// it behind it (coherence), and reads this one or a later one.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Completes what [`begin`](Self::begin) announced, and releases it: a thread that acquires the version, and
    /// then loads, gets that snapshot or a later one.
    pub(super) fn complete(&self) {
        let step = (1 << UNDER_WAY_BITS) - 1;
        (self.0).fetch_add(step, ordering!(Release, "version-release" => Relaxed));
    }

    /// The version, to be acquired before a load: see [`complete`](Self::complete).
    pub(super) fn acquire(&self) -> u64 {
        self.0.load(ordering!(Acquire, "hold-acquire" => Relaxed))
    }

    /// The version.
    ///
    /// `Relaxed`: a version is only compared. Versions only grow, and have one order (read-read
    /// coherence): a thread that learns of a publication reads its version here, or a later one.
    #[inline]
    pub(super) fn latest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether both are the same cell's.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
