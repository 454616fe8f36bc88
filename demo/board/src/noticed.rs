//! Faults that cards detect and guests cannot.

use core::sync::atomic::{AtomicU64, Ordering};

/// The counts of all cards (`Relaxed`).
#[derive(Debug, Default)]
pub struct Noticed {
    astray: AtomicU64,
    caught: AtomicU64,
    late: AtomicU64,
}

impl Noticed {
    /// Accesses in bays where the card never was, and writes of tags to a card that was not read.
    pub fn astray(&self) -> u64 {
        self.astray.load(Ordering::Relaxed)
    }

    /// The number of removals of a card with a vCPU inside.
    pub fn caught(&self) -> u64 {
        self.caught.load(Ordering::Relaxed)
    }

    /// Accesses to devices that should have been out of use.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    pub(crate) fn add_astray(&self) {
        self.astray.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_caught(&self) {
        self.caught.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }
}
