//! [`SpaceSaving`]: the most frequent of any number of addresses, in memory of fixed size.

use crate::missed::{LISTED, Missed, MissedAddress};

/// The number of addresses, from the first, that are all entered in the list.
const EXACT: u64 = 4_096;

/// The longest distance between two entered addresses beyond [`EXACT`]. The distance is random, from 1 to this, and the
/// address that is entered counts for all since the one before. A power of two.
const GAPS: u64 = 128;

/// Counts the most frequent addresses, as [`Missed`] describes, without allocation.
///
/// An address that is not listed replaces the least frequent listed one, and takes over its count. That count is its
/// error: the new address may have caused none of it.
///
/// # Invariants
///
/// - *Sorted*: the first `len` entries are in use, by descending count, each with a different address.
/// - *Whole*: the sum of their counts is the sum of the weights of all entered addresses.
pub(crate) struct SpaceSaving {
    /// The ordinal number of the next address to be entered.
    scheduled: u64,
    /// The number of addresses still to come, up to and including that one; `gap` is this number just after an entry.
    left: u64,
    gap: u64,
    /// The last pseudo-random number.
    random: u64,
    len: usize,
    entries: [MissedAddress; LISTED],
}

impl SpaceSaving {
    pub(crate) fn new() -> Self {
        Self {
            scheduled: 1,
            left: 1,
            gap: 1,
            random: 0,
            len: 0,
            entries: [MissedAddress::default(); LISTED],
        }
    }

    /// Starts an empty list. The random distances go on: a guest does not see them again.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            random: self.random,
            ..Self::new()
        };
    }

    /// The number of addresses that were counted.
    pub(crate) const fn total(&self) -> u64 {
        self.scheduled - self.left
    }

    /// Counts an address once more.
    #[inline(always)]
    pub(crate) fn count(&mut self, address: u64) {
        self.left -= 1;
        if self.left == 0 {
            self.enter_scheduled(address);
        }
    }

    /// Enters the address that was scheduled, and schedules another.
    #[cold]
    #[inline(never)]
    fn enter_scheduled(&mut self, address: u64) {
        self.enter(address, self.gap);
        self.gap = if self.scheduled < EXACT {
            1
        } else {
            self.random_gap()
        };
        self.left = self.gap;
        self.scheduled += self.gap;
    }

    /// A pseudo-random distance, so that periodic accesses of a guest do not match the samples.
    fn random_gap(&mut self) -> u64 {
        // Knuth's MMIX generator, whose high bits are good.
        let next = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = next.wrapping_add(1_442_695_040_888_963_407);
        1 + (self.random >> (u64::BITS - GAPS.ilog2()))
    }

    /// Enters an address in the list, `weight` times.
    fn enter(&mut self, address: u64, weight: u64) {
        let at = self.place_of(address);
        let count = self.entries[at].count + weight;
        self.entries[at].count = count;
        // INVARIANT (Sorted): the entry moves up to just behind those with the same or a higher count. (Whole): its
        // count grows by `weight`.
        let first = self.entries[..at].partition_point(|of| of.count >= count);
        self.entries[first..=at].rotate_right(1);
    }

    /// The place of the address in the list. Lists it if it is not listed yet.
    fn place_of(&mut self, address: u64) -> usize {
        let used = &self.entries[..self.len];
        if let Some(at) = used.iter().position(|of| of.address == address) {
            return at;
        }
        let at = if self.len < LISTED {
            // INVARIANT (Sorted): zero is the lowest count.
            self.len += 1;
            self.len - 1
        } else {
            LISTED - 1
        };
        let count = self.entries[at].count;
        self.entries[at] = MissedAddress {
            address,
            count,
            error: count,
        };
        at
    }

    /// The list of addresses with their counts.
    pub(crate) fn list(&self) -> Missed {
        let used = &self.entries[..self.len];
        // The address that last replaced another is still listed, with an error.
        let were_all_listed = used.iter().all(|of| of.error == 0);
        Missed {
            total: self.total(),
            addresses: used.to_vec(),
            unlisted: match used.last() {
                Some(least) if !were_all_listed => least.count,
                _ => 0,
            },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Exact = BTreeMap<u64, u64>;

    fn counted(addresses: &[u64]) -> (Missed, Exact) {
        let mut sketch = SpaceSaving::new();
        let mut exact = Exact::new();
        for &address in addresses {
            sketch.count(address);
            *exact.entry(address).or_default() += 1;
        }
        (sketch.list(), exact)
    }

    #[test]
    fn of_very_many_a_sample_is_entered() {
        let mut sketch = SpaceSaving::new();
        // One address in four is the same, with a period that the sample does not have.
        let n = 64 * EXACT;
        for i in 0..n {
            sketch.count(if i % 4 == 0 { 7 } else { 1_000 + i });
        }
        let missed = sketch.list();
        assert_eq!(missed.total, n);
        let entered: u64 = missed.addresses.iter().map(|of| of.count).sum();
        assert!(entered.abs_diff(n) < n / 16, "{entered} of {n}");
        let most = missed.addresses[0];
        assert_eq!(most.address, 7);
        assert!(most.count.abs_diff(n / 4) < n / 16, "{most:?} of {n}");
        assert!(missed.addresses.is_sorted_by_key(|of| u64::MAX - of.count));
    }

    #[test]
    fn a_cleared_list_is_empty_and_its_samples_differ() {
        let sampled = |sketch: &mut SpaceSaving| -> Vec<u64> {
            let is_sampled = |at: &u64| {
                sketch.count(*at);
                sketch.left == sketch.gap
            };
            (0..2 * EXACT).filter(is_sampled).collect()
        };
        let mut sketch = SpaceSaving::new();
        let first = sampled(&mut sketch);
        sketch.clear();
        assert_eq!(sketch.list(), Missed::default());
        let second = sampled(&mut sketch);
        let exact = EXACT as usize;
        assert_eq!(first[..exact], second[..exact]);
        assert_ne!(first[exact..], second[exact..]);
    }

    /// Checks everything that [`Missed`] guarantees.
    fn check(missed: &Missed, exact: &Exact) {
        let total = exact.values().sum::<u64>();
        assert_eq!(missed.total, total);
        assert!(missed.addresses.is_sorted_by_key(|of| u64::MAX - of.count));
        assert!(missed.addresses.len() <= LISTED);
        for of in &missed.addresses {
            let truth = exact.get(&of.address).copied().unwrap_or(0);
            assert!(
                of.at_least() <= truth && truth <= of.count,
                "{of:?}: {truth}"
            );
            assert!(of.error * LISTED as u64 <= total, "{of:?} of {total}");
        }
        assert!(missed.unlisted * LISTED as u64 <= total, "{missed:?}");
        for (address, &truth) in exact {
            let listed = missed.addresses.iter().filter(|of| of.address == *address);
            match listed.count() {
                0 => assert!(truth <= missed.unlisted, "{address:#x}: {truth}"),
                times => assert_eq!(times, 1, "{address:#x}"),
            }
        }
        // The counts above the bound of the unlisted, which the proof of merging uses.
        let above = missed.addresses.iter().map(|of| of.count - missed.unlisted);
        assert!(above.sum::<u64>() + LISTED as u64 * missed.unlisted <= total);
    }

    /// Sequences of addresses: frequent ones among many rare ones, early, late, alternating; and sequences in which
    /// each address is dropped from the list just before it comes again.
    fn sequences() -> Vec<Vec<u64>> {
        let mut random = 1_u64;
        let mut next = move |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        let mut all = vec![
            vec![],
            vec![7],
            (0..16).cycle().take(1_000).collect(),
            // Each comes again just after it was dropped.
            (0..17).cycle().take(1_000).collect(),
            (0..1_000).collect(),
            // The frequent one first, then a flood; the reverse; and both alternating.
            [vec![1_000_000; 70], (0..1_000).collect()].concat(),
            [(0..1_000).collect(), vec![1_000_000; 70]].concat(),
            (0..1_000)
                .flat_map(|n| [n, if n % 10 == 0 { 1_000_000 } else { n }])
                .collect(),
            // Sixteen that are equally frequent, and one more.
            (0..16).flat_map(|n| [n; 10]).chain(16..40).collect(),
            // The dropped ones, in reverse order.
            (0..100).chain((0..100).rev()).collect(),
        ];
        // Many that are rare, few that are frequent.
        all.extend((1..12).map(|n| {
            (0..300 * n)
                .map(|_| next(200).min(next(200)).min(next(30 * n)))
                .collect()
        }));
        all
    }

    #[test]
    fn up_to_sixteen_addresses_are_counted_exactly() {
        let addresses: Vec<_> = (0..16).flat_map(|n| vec![n; n as usize + 1]).collect();
        let (missed, exact) = counted(&addresses);
        check(&missed, &exact);
        let listed = missed
            .addresses
            .iter()
            .map(|of| (of.address, of.count, of.error));
        assert!(listed.eq((0..16).rev().map(|n| (n, n + 1, 0))));
        assert_eq!(missed.unlisted, 0);
    }

    #[test]
    fn the_next_address_takes_the_place_of_the_least_frequent() {
        let addresses: Vec<_> = (0..16).flat_map(|n| vec![n; n as usize + 2]).collect();
        let (missed, _) = counted(&[addresses, vec![99]].concat());
        let last = &missed.addresses[15];
        assert_eq!((last.address, last.count, last.error), (99, 3, 2));
        assert!(missed.addresses.iter().all(|of| of.address != 0));
        assert_eq!(missed.unlisted, 3);
    }

    #[test]
    fn counts_of_a_sequence_keep_the_guarantees() {
        for sequence in sequences() {
            for end in (0..sequence.len()).step_by(17).chain([sequence.len()]) {
                let (missed, exact) = counted(&sequence[..end]);
                check(&missed, &exact);
            }
        }
    }

    #[test]
    fn a_flood_does_not_hide_a_frequent_address() {
        // One in thirty: less than the guarantees need.
        let flood = (0..1_500).flat_map(|n| {
            if n % 15 == 0 {
                [1_000_000, n]
            } else {
                [n, n + 5_000]
            }
        });
        let (missed, exact) = counted(&flood.collect::<Vec<_>>());
        check(&missed, &exact);
        // One in fifteen is enough to be the first of the list.
        let (missed, _) = counted(
            &(0..15_000)
                .map(|n| if n % 15 == 0 { 1_000_000 } else { n })
                .collect::<Vec<_>>(),
        );
        assert_eq!(missed.addresses[0].address, 1_000_000);
    }

    #[test]
    fn merged_counts_keep_the_guarantees() {
        let all: Vec<_> = sequences().iter().map(|of| counted(of)).collect();
        for (one, exactly) in &all {
            let mut missed = one.clone();
            let mut exact = exactly.clone();
            for (other, more) in &all {
                missed.merge(other);
                for (address, count) in more {
                    *exact.entry(*address).or_default() += count;
                }
                check(&missed, &exact);
            }
        }
    }

    #[test]
    fn merging_short_lists_is_exact() {
        let ((mut one, _), (other, _)) = (counted(&[1, 2, 2]), counted(&[3, 2, 3, 3, 3]));
        one.merge(&other);
        let listed = one.addresses.iter().map(|of| (of.address, of.count));
        assert!(listed.eq([(3, 4), (2, 3), (1, 1)]));
        assert!(one.addresses.iter().all(|of| of.error == 0));
        assert_eq!((one.total, one.unlisted), (8, 0));
        let before = one.clone();
        one.merge(&Missed::default());
        assert_eq!(one, before);
    }
}
