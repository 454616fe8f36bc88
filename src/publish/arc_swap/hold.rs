//! [`ArcSwapHold`]: a reader's own count of a snapshot.

use core::ops::Deref;

use arc_swap::{ArcSwap, Cache};

use crate::{publish::SnapshotCell, sync::Arc};

/// A count of a snapshot of the cell behind `C`, kept from load to load.
pub(crate) struct ArcSwapHold<C, T>(Cache<Source<C>, Arc<T>>);

/// The pointer that [`Cache`] compares its own with.
struct Source<C>(C);

impl<C: Deref<Target = SnapshotCell<T>>, T> Deref for Source<C> {
    type Target = ArcSwap<T>;

    #[inline]
    fn deref(&self) -> &ArcSwap<T> {
        &self.0.0.current
    }
}

impl<C: Deref<Target = SnapshotCell<T>>, T> ArcSwapHold<C, T> {
    /// Holds the current snapshot.
    pub(crate) fn new(cell: C) -> Self {
        Self(Cache::new(Source(cell)))
    }

    /// The current snapshot. One load of the cell's pointer, unless it was replaced.
    #[inline]
    pub(crate) fn load(&mut self) -> &T {
        self.0.load()
    }
}
