//! What was found wrong, and the first of it.

use core::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::count::Count;

/// Wrong values that one CPU found (`Relaxed`).
#[derive(Debug)]
pub(crate) struct Finding {
    count: Count,
    /// Address, what was read, what should have been.
    first: [AtomicU32; 3],
}

impl Finding {
    pub(crate) const fn new() -> Self {
        Self {
            count: Count::new(),
            first: [const { AtomicU32::new(0) }; 3],
        }
    }

    /// Notes a wrong value.
    pub(crate) fn note(&self, address: u32, got: u32, expected: u32) {
        if self.count.get() == 0 {
            for (word, value) in self.first.iter().zip([address, got, expected]) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.count.add_one();
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }
}

/// The first.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [address, got, expected] =
            [0, 1, 2].map(|i: usize| self.first[i].load(Ordering::Relaxed));
        write!(
            f,
            "MMIO {address:#x} read as {got:#x}, not as {expected:#x}"
        )
    }
}
