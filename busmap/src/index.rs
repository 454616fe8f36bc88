//! [`Index`]: the sorted first addresses of spans, and a search among them.

use alloc::vec::Vec;
use core::hint;

use crate::{
    refusal::Refusal,
    reserve::{reserve, reserved},
};

/// The minimum number of leaves for nine or more spans, before a rounding that at most halves it. For fewer spans the
/// minimum is an eighth of this for each span after the first. With many spans there are two to eight leaves for each.
const FEWEST_LEAVES: usize = if cfg!(miri) { 32 } else { 2_048 };

/// The first addresses of a bus's spans, sorted, and an index of them.
///
/// The index divides the addresses from the lowest span to beyond the highest into *leaves* of equal size, and stores
/// for each leaf the number of spans that start below it. A binary search without branches finds the nearest of the
/// spans that start in the leaf. It takes the same number of steps in all leaves, so that a processor predicts every
/// branch: one step, if at most one span starts in each leaf.
///
/// An insertion or removal updates the counts of all leaves above it. The index is rebuilt when a leaf gets more spans than
/// a search covers, when a span starts below or ends above all leaves, and after about half as many changes as spans.
///
/// Pure data.
///
/// # Invariants
///
/// - *Sorted*: the first `len` of `firsts` ascend. If there are leaves, at least `reach` elements follow, each `u64::MAX`.
/// - *Counted*: if there are leaves, all first addresses are in them or above, and `below[leaf]` is the number of
///   those below the leaf.
/// - *Reach*: at most `reach` spans start in each leaf. `reach` is a power of two.
/// - *Bounded*: no leaf contains `u64::MAX`.
pub(crate) struct Index {
    firsts: Vec<u64>,
    len: usize,
    /// The first address of the first leaf.
    base: u64,
    /// The size of a leaf is `1 << shift` addresses.
    shift: u32,
    below: Vec<u16>,
    reach: usize,
    /// The number of changes until the index is rebuilt.
    lifetime: usize,
    /// No span contains an address below `lowest` or above `highest`.
    lowest: u64,
    highest: u64,
}

impl Index {
    /// An index of no spans.
    pub(crate) const fn new() -> Self {
        Self {
            firsts: Vec::new(),
            len: 0,
            base: 0,
            shift: 0,
            below: Vec::new(),
            reach: 1,
            lifetime: 0,
            lowest: u64::MAX,
            highest: u64::MAX,
        }
    }

    /// A copy with room for `more` first addresses.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn try_clone(&self, more: usize) -> Result<Self, Refusal> {
        let mut firsts = reserved(self.firsts.len() + more)?;
        let mut below = reserved(self.below.len())?;
        firsts.extend_from_slice(&self.firsts);
        below.extend_from_slice(&self.below);
        Ok(Self {
            firsts,
            below,
            ..*self
        })
    }

    /// The position of the span that starts nearest to `addr`, at or below it: the only one that can contain it. May be
    /// [`usize::MAX`] if none does.
    #[inline(always)]
    pub(crate) fn nearest(&self, addr: u64) -> usize {
        // An address below the base gets a high number, which no leaf has.
        let leaf = addr.wrapping_sub(self.base) >> (self.shift & 63);
        let Some(&below) = usize::try_from(leaf)
            .ok()
            .and_then(|leaf| self.below.get(leaf))
        else {
            hint::cold_path();
            return self.nearest_outside(addr);
        };
        let mut rank = usize::from(below);
        let mut step = self.reach / 2;
        while step > 0 {
            let next = rank + step;
            // SAFETY: all steps together are less than `reach`, `below` is at most `len` (Counted), and `reach`
            // elements follow the first `len` (Sorted).
            let last_skipped = unsafe { *self.firsts.get_unchecked(next - 1) };
            // INVARIANT (Bounded): `addr` is not `u64::MAX`, so that no step skips what follows the first `len`.
            rank = hint::select_unpredictable(last_skipped <= addr, next, rank);
            step /= 2;
        }
        // SAFETY: as above: fewer than `reach` were skipped.
        let next = unsafe { *self.firsts.get_unchecked(rank) };
        rank.wrapping_sub(usize::from(addr < next))
    }

    /// The same for an address that is in no leaf. Misses above and below all spans take the same branches, so that a
    /// processor predicts them.
    #[inline(never)]
    fn nearest_outside(&self, addr: u64) -> usize {
        if addr.wrapping_sub(self.lowest) > self.highest - self.lowest {
            return usize::MAX;
        }
        self.rank(addr).wrapping_sub(1)
    }

    /// The number of first addresses at or below `addr`.
    pub(crate) fn rank(&self, addr: u64) -> usize {
        self.firsts[..self.len].partition_point(|&first| first <= addr)
    }

    /// The leaf that contains an address.
    fn leaf(&self, addr: u64) -> Option<usize> {
        let leaf = usize::try_from(addr.checked_sub(self.base)? >> self.shift).ok()?;
        (leaf < self.below.len()).then_some(leaf)
    }

    /// Inserts a first address at its position. `top` is the highest address of all spans, including the new one's.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]. The index must not be used afterwards.
    pub(crate) fn insert(&mut self, at: usize, first: u64, top: u64) -> Result<(), Refusal> {
        reserve(&mut self.firsts, 1)?;
        // INVARIANT (Sorted): `at` is its position. (Counted): see below.
        self.firsts.insert(at, first);
        self.len += 1;
        self.bound(top);
        match self.leaf(first) {
            Some(leaf) if self.has_room(leaf) && self.leaf(top).is_some() => {
                // INVARIANT (Counted): it is below all leaves above its own. (Reach): there was room.
                self.below[leaf + 1..].iter_mut().for_each(|n| *n += 1);
                self.lifetime -= 1;
                Ok(())
            }
            _ => self.rebuild(top),
        }
    }

    /// Removes the first address at a position. `top` is the highest address of the remaining spans, if there are any.
    ///
    /// # Errors
    ///
    /// As for [`insert`](Self::insert).
    pub(crate) fn remove(&mut self, at: usize, top: u64) -> Result<(), Refusal> {
        // INVARIANT (Sorted, Reach): fewer remain. (Counted): see below.
        let first = self.firsts.remove(at);
        self.len -= 1;
        self.bound(top);
        match self.leaf(first) {
            Some(leaf) if self.lifetime > 0 => {
                // INVARIANT (Counted): it was below all leaves above its own.
                self.below[leaf + 1..].iter_mut().for_each(|n| *n -= 1);
                self.lifetime -= 1;
                Ok(())
            }
            _ => self.rebuild(top),
        }
    }

    /// Updates the bounds of all spans.
    fn bound(&mut self, top: u64) {
        (self.lowest, self.highest) = match self.firsts[..self.len] {
            [lowest, ..] => (lowest, top),
            [] => (u64::MAX, u64::MAX),
        };
    }

    /// Whether a leaf can count the first address that was just inserted, which no leaf counts yet.
    fn has_room(&self, leaf: usize) -> bool {
        let counted = self.len - 1;
        let end = self.below.get(leaf + 1).map_or(counted, |&n| n.into());
        let starts = end - usize::from(self.below[leaf]);
        self.lifetime > 0 && starts < self.reach && self.len <= usize::from(u16::MAX)
    }

    /// Rebuilds the leaves.
    fn rebuild(&mut self, top: u64) -> Result<(), Refusal> {
        // INVARIANT (all): there are no leaves.
        self.below.clear();
        self.firsts.truncate(self.len);
        self.reach = 1;
        self.lifetime = 0;
        let Some(&base) = self.firsts.first() else {
            return Ok(());
        };
        if self.len > usize::from(u16::MAX) {
            return Ok(());
        }
        // Room for spans that are added above.
        let length = top - base;
        let length = length.saturating_add(length / 8).min(u64::MAX - base);
        let fewest = FEWEST_LEAVES.min(FEWEST_LEAVES / 8 * (self.len - 1));
        let most = (4 * self.len).next_power_of_two().max(fewest) as u64;
        self.base = base;
        self.shift = 0;
        while length >> self.shift >= most {
            self.shift += 1;
        }
        // INVARIANT (Bounded): the leaf of `u64::MAX` is left out.
        let Some(highest) = ((u64::MAX - base) >> self.shift).checked_sub(1) else {
            return Ok(());
        };
        self.count((length >> self.shift).min(highest) as usize)?;
        self.lifetime = self.len / 2 + 2;
        Ok(())
    }

    /// Counts the spans below each leaf, from the first to the one with this number.
    fn count(&mut self, last: usize) -> Result<(), Refusal> {
        let mut below = reserved(last + 1)?;
        let (mut rank, mut starts, mut most) = (0, 0, 1_usize);
        for &first in &self.firsts {
            let leaf = (first - self.base) >> self.shift;
            if leaf > last as u64 {
                break;
            }
            let end = leaf as usize + 1;
            starts = if end > below.len() { 1 } else { starts + 1 };
            most = most.max(starts);
            // INVARIANT (Counted): none is in the leaves between the last one's and its own.
            below.resize(end.max(below.len()), rank);
            rank += 1;
        }
        below.resize(last + 1, rank);
        let reach = most.next_power_of_two();
        reserve(&mut self.firsts, reach)?;
        // INVARIANT (Sorted): `reach` elements follow before there are leaves. (Reach): at most `reach` spans start in a leaf.
        self.firsts.resize(self.len + reach, u64::MAX);
        self.reach = reach;
        self.below = below;
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::iter;

    use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

    use super::*;
    use crate::testing::size;

    const CHANGES: usize = size(3_000, 60);
    const SPANS: usize = size(300, 12);

    /// An index, and the first addresses that it should have.
    struct Starts {
        firsts: Vec<u64>,
        index: Index,
    }

    impl Starts {
        fn new(firsts: impl IntoIterator<Item = u64>) -> Self {
            let mut starts = Self {
                firsts: Vec::new(),
                index: Index::new(),
            };
            firsts.into_iter().for_each(|first| starts.insert(first));
            starts
        }

        /// The end of the highest span.
        fn top(&self) -> u64 {
            self.firsts.last().map_or(0, |last| last.saturating_add(9))
        }

        fn insert(&mut self, first: u64) {
            if let Err(at) = self.firsts.binary_search(&first) {
                self.firsts.insert(at, first);
                let top = self.top();
                self.index.insert(at, first, top).unwrap();
            }
        }

        fn remove(&mut self, first: u64) {
            let at = self.firsts.binary_search(&first).unwrap();
            self.firsts.remove(at);
            let top = self.top();
            self.index.remove(at, top).unwrap();
        }

        /// With new leaves.
        fn rebuilt(mut self) -> Self {
            let top = self.top();
            self.index.rebuild(top).unwrap();
            self
        }

        fn check(&self, addr: u64) {
            let rank = self.firsts.partition_point(|&first| first <= addr);
            let nearest = self.index.nearest(addr);
            let is_outside = rank == 0 || addr > self.top();
            let none = is_outside && nearest == usize::MAX;
            assert!(
                none || nearest == rank.wrapping_sub(1),
                "{addr:#x}: {nearest}"
            );
        }

        /// Checks all addresses at which the answer changes, both ends of the bus, and the invariants.
        fn check_all(&self) {
            let edges = self.firsts.iter().flat_map(|&first| {
                let around = [first.saturating_sub(1), first, first.saturating_add(1)];
                around.into_iter()
            });
            edges.chain([0, u64::MAX]).for_each(|addr| self.check(addr));
            self.check_invariants();
        }

        fn check_invariants(&self) {
            let Index {
                firsts, len, below, ..
            } = &self.index;
            assert_eq!(firsts[..*len], self.firsts);
            assert!(firsts[*len..].iter().all(|&first| first == u64::MAX));
            let mut starts = vec![0; below.len()];
            for &first in &self.firsts {
                let Some(leaf) = self.index.leaf(first) else {
                    let above = first.checked_sub(self.index.base);
                    assert!(below.is_empty() || above.is_some());
                    continue;
                };
                starts[leaf] += 1;
            }
            let counts = starts.iter().scan(0, |sum, n| {
                *sum += n;
                Some(*sum - n)
            });
            assert!(counts.eq(below.iter().copied()));
            let reach = self.index.reach;
            assert!(reach.is_power_of_two());
            assert!(starts.iter().all(|&n| usize::from(n) <= reach));
            assert!(below.is_empty() || firsts.len() >= len + reach);
            assert_eq!(self.index.leaf(u64::MAX), None);
        }
    }

    fn rng() -> SmallRng {
        SmallRng::seed_from_u64(7)
    }

    #[test]
    fn without_spans_none_is_near() {
        let starts = Starts::new([]);
        assert_eq!(starts.index.nearest(5), usize::MAX);
        starts.check_all();
    }

    #[test]
    fn even_distances_need_one_step() {
        for distance in [1, 8, 0x200, 0x1000, 0x2_0000, 1 << 40] {
            let starts = Starts::new((0..SPANS as u64).map(|i| 0x1000_0000 + i * distance));
            starts.check_all();
            let starts = starts.rebuilt();
            assert_eq!(starts.index.reach, 1);
            starts.check_all();
        }
    }

    /// As the `virt` machine of QEMU has them, and as many PCI windows far above.
    #[test]
    fn clusters_need_as_many_steps_as_the_largest_does() {
        let near = [0x800_0000, 0x808_0000, 0x80a_0000, 0x900_0000, 0x901_0000];
        let virtio = (0..32).map(|i| 0xa00_0000 + i * 0x200);
        let far = (0..32).map(|i| 0x80_0000_0000 + i * 0x4000);
        let starts = Starts::new(near.into_iter().chain(virtio).chain(far));
        starts.check_all();
        let starts = starts.rebuilt();
        assert_eq!(starts.index.reach, 64);
        starts.check_all();
    }

    #[test]
    fn the_last_address_of_the_bus_can_be_a_first_one() {
        Starts::new([u64::MAX]).check_all();
        Starts::new([u64::MAX, 0, u64::MAX - 1, 1 << 63]).check_all();
        Starts::new((0..20).map(|i| u64::MAX - i)).check_all();
        Starts::new((0..SPANS as u64).map(|i| u64::MAX - (i << 50))).check_all();
    }

    #[test]
    fn stays_right_after_random_insertions_and_removals() {
        let mut rng = rng();
        for bits in [8, 16, 40, 64] {
            let mut starts = Starts::new([]);
            for change in 0..CHANGES {
                let n = starts.firsts.len();
                if n > 0 && (n > SPANS || rng.random_ratio(1, 3)) {
                    let first = *starts.firsts.choose(&mut rng).unwrap();
                    starts.remove(first);
                } else {
                    // Of all magnitudes.
                    let shift = 64 - rng.random_range(1..=bits);
                    starts.insert(rng.random::<u64>() >> shift);
                }
                starts.check(rng.random::<u64>() >> (64 - bits));
                if change % 64 == 0 {
                    starts.check_all();
                }
            }
            while let Some(&first) = starts.firsts.first() {
                starts.remove(first);
                starts.check_all();
            }
        }
    }

    #[test]
    fn finer_leaves_replace_those_that_fill() {
        let spans = SPANS as u64;
        let mut starts = Starts::new((0..spans).map(|i| i << 20));
        // Those that are added above, nearer to each other, need leaves as fine.
        let last = (spans - 1) << 20;
        (1..spans).for_each(|i| starts.insert(last + (i << 12)));
        starts.check_all();
        (0..spans - 1).for_each(|i| starts.remove(i << 20));
        (0..spans / 2).for_each(|_| {
            starts.remove(last);
            starts.insert(last);
        });
        starts.check_all();
        assert_eq!(starts.index.reach, 1);
    }

    #[test]
    fn a_span_above_all_leaves_gets_its_own() {
        let mut starts = Starts::new([0x1000, 0x2000]);
        starts.insert(1 << 40);
        assert!(starts.index.leaf(starts.top()).is_some());
        starts.check_all();
    }

    #[test]
    fn more_than_can_be_counted_have_no_leaves() {
        let most = usize::from(u16::MAX);
        let firsts: Vec<_> = (0..most as u64).map(|i| i * 3).collect();
        let mut index = Index {
            firsts,
            len: most,
            ..Index::new()
        };
        let top = most as u64 * 3;
        index.rebuild(top).unwrap();
        assert!(!index.below.is_empty());
        index.insert(most, top, top).unwrap();
        assert!(index.below.is_empty());
        assert_eq!(index.nearest(7), 2);
        index.remove(most, top - 3).unwrap();
        assert!(!index.below.is_empty());
        assert_eq!(index.nearest(7), 2);
    }

    #[test]
    fn a_copy_finds_the_same() {
        let starts = Starts::new(iter::successors(Some(1_u64), |&at| at.checked_mul(3)));
        let copy = Starts {
            index: starts.index.try_clone(0).unwrap(),
            firsts: starts.firsts.clone(),
        };
        copy.check_all();
    }
}
