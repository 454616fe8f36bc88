//! A count that one thread increments and others read.

use core::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread increments, never both inside and outside an interrupt handler. Others may read it
/// (`Relaxed`).
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one more.
    #[inline]
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    /// The count.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
