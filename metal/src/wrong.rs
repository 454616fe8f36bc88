//! Wrong values, and the first of them.

use core::sync::atomic::{AtomicU32, Ordering};

use board::{Count, Finding};

/// Wrong values that one CPU found (`Relaxed`).
#[derive(Debug)]
pub(crate) struct Wrong {
    count: Count,
    /// Address, value read, expected value.
    first: [AtomicU32; 3],
}

impl Wrong {
    pub(crate) const fn new() -> Self {
        Self {
            count: Count::new(),
            first: [const { AtomicU32::new(0) }; 3],
        }
    }

    /// Records a wrong value.
    pub(crate) fn note(&self, address: u32, got: u32, expected: u32) {
        if self.count.get() == 0 {
            for (word, value) in self.first.iter().zip([address, got, expected]) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.count.add_one();
    }

    /// The number of wrong values.
    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// The first, if there was one.
    pub(crate) fn first(&self) -> Finding {
        let [address, got, expected] =
            [0, 1, 2].map(|i: usize| self.first[i].load(Ordering::Relaxed));
        Finding {
            address,
            got,
            expected,
        }
    }
}
