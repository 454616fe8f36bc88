//! [`Version`]: the number of a cell's publications, complete and under way.

use crossbeam_utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Ordering, ordering};

/// The version of a parked hold, below every version of a cell.
pub(crate) const NEVER: u64 = 0;

/// The number of low bits of a version, which count the publications under way.
const UNDER_WAY_BITS: u32 = 12;

/// The number of publications of a cell, including the first snapshot, and the number of those under way: begun and not
/// yet completed. It has a separate allocation, so that holds read it without the cell.
///
/// 52 bits count publications, more than a machine makes; 12 bits count the threads inside one.
#[derive(Clone)]
pub(super) struct Version(Arc<CachePadded<AtomicU64>>);

/// Whether no publication was under way at this version.
pub(super) const fn is_settled(version: u64) -> bool {
    version & ((1 << UNDER_WAY_BITS) - 1) == 0
}

impl Version {
    /// The first version of a cell.
    pub(super) fn first() -> Self {
        let first = NEVER + (1 << UNDER_WAY_BITS);
        Self(Arc::new(CachePadded::new(AtomicU64::new(first))))
    }

    /// Announces a publication, or an attempt, which the caller makes next.
    ///
    /// `Relaxed`: a thread that learns of the publication by any synchronisation no longer reads an older version
    /// (coherence), but this one or a later one.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Completes the publication that [`begin`](Self::begin) announced, and releases it: a thread that acquires the
    /// version, and then loads, gets that snapshot or a later one.
    pub(super) fn complete(&self) {
        let step = (1 << UNDER_WAY_BITS) - 1;
        (self.0).fetch_add(step, ordering!(Release, "version-release" => Relaxed));
    }

    /// Acquires the version, before a load: see [`complete`](Self::complete).
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

    /// Whether both belong to the same cell.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
