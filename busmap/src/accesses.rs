//! [`Accesses`]: the number of accesses, by direction.

use crate::direction::Direction;

/// The number of accesses, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Accesses {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Accesses {
    pub(crate) const NONE: Self = Self {
        reads: 0,
        writes: 0,
    };

    /// Reads and writes.
    pub const fn total(self) -> u64 {
        self.reads.saturating_add(self.writes)
    }

    /// Counts one more access.
    #[inline(always)]
    pub(crate) const fn count(&mut self, direction: Direction) {
        // A counter that grows by one does not overflow in practice.
        match direction {
            Direction::Read => self.reads = self.reads.wrapping_add(1),
            Direction::Write => self.writes = self.writes.wrapping_add(1),
        }
    }

    /// Adds accesses that were counted one by one.
    #[inline(always)]
    pub(crate) const fn add(&mut self, counted: Self) {
        self.reads = self.reads.wrapping_add(counted.reads);
        self.writes = self.writes.wrapping_add(counted.writes);
    }

    /// The increase since `before`.
    #[inline(always)]
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads.wrapping_sub(before.reads),
            writes: self.writes.wrapping_sub(before.writes),
        }
    }

    /// The sum of both.
    #[inline]
    pub(crate) const fn plus(self, more: Self) -> Self {
        Self {
            reads: self.reads.saturating_add(more.reads),
            writes: self.writes.saturating_add(more.writes),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_by_direction() {
        let mut accesses = Accesses::default();
        accesses.count(Direction::Write);
        accesses.count(Direction::Read);
        accesses.count(Direction::Write);
        let (reads, writes) = (1, 2);
        assert_eq!(accesses, Accesses { reads, writes });
        assert_eq!(accesses.total(), 3);
        let (reads, writes) = (u64::MAX, 0);
        let sum = accesses.plus(Accesses { reads, writes });
        assert_eq!((sum.reads, sum.writes, sum.total()), (reads, 2, reads));
    }
}
