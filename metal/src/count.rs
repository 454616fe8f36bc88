//! Counts that one CPU makes and others read.

use core::sync::atomic::{AtomicU64, Ordering};

/// A count that one CPU makes, and not in an interrupt handler and out of it; others may look at it.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn add_one(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
