//! Candidates for the index of a table: given an address, how many devices start at or below it.
//!
//! Each is built from the sorted first addresses of the devices, is held against the standard
//! library's search, and is then timed on accesses that are uniformly random.

use std::{hint::black_box, iter, time::Instant};

use axaddrspace::GuestPhysAddrRange;
use axdevice_benches::{
    Bus, Pattern, accesses,
    scenario::{self, INDEXED, INDEXES},
};
use criterion::{Criterion, criterion_group, criterion_main};

/// An index.
trait Index {
    const NAME: &'static str;

    fn new(firsts: &[usize]) -> Self;

    /// How many devices start at or below `addr`.
    fn rank(&self, addr: usize) -> usize;
}

/// What the tables have: the standard library's binary search, which has no branches.
struct Standard(Vec<usize>);

impl Index for Standard {
    const NAME: &'static str = INDEXES[0];

    fn new(firsts: &[usize]) -> Self {
        Self(firsts.to_vec())
    }

    #[inline]
    fn rank(&self, addr: usize) -> usize {
        self.0.partition_point(|&first| first <= addr)
    }
}

/// Compares with every device.
struct Linear(Vec<usize>);

impl Index for Linear {
    const NAME: &'static str = INDEXES[1];

    fn new(firsts: &[usize]) -> Self {
        Self(firsts.to_vec())
    }

    #[inline]
    fn rank(&self, addr: usize) -> usize {
        self.0.iter().map(|&first| usize::from(first <= addr)).sum()
    }
}

/// A search tree in the order of its levels, so that its upper levels lie side by side.
struct Eytzinger {
    /// The root is at 1, the children of `k` at `2k` and `2k + 1`.
    firsts: Vec<usize>,
    ranks: Vec<u16>,
}

impl Eytzinger {
    /// Fills the tree below `k` with what is left, in order.
    fn fill(&mut self, k: usize, left: &mut impl Iterator<Item = (usize, usize)>) {
        if k < self.firsts.len() {
            self.fill(2 * k, left);
            let (rank, first) = left.next().expect("there are as many as places");
            (self.firsts[k], self.ranks[k]) = (first, rank as u16);
            self.fill(2 * k + 1, left);
        }
    }
}

impl Index for Eytzinger {
    const NAME: &'static str = INDEXES[2];

    fn new(firsts: &[usize]) -> Self {
        let mut tree = Self {
            firsts: vec![0; firsts.len() + 1],
            ranks: vec![firsts.len() as u16; firsts.len() + 1],
        };
        tree.fill(1, &mut firsts.iter().copied().enumerate());
        tree
    }

    #[inline]
    fn rank(&self, addr: usize) -> usize {
        let mut k = 1;
        while k < self.firsts.len() {
            k = 2 * k + usize::from(self.firsts[k] <= addr);
        }
        // The last turn to the left was at the lowest device above the address.
        usize::from(self.ranks[k >> (k.trailing_ones() + 1)])
    }
}

/// A table of pages, each with the device that was found there; searches where it guesses wrong. As
/// a `Dispatcher`'s.
struct Pages {
    ranks: Box<[u16; 1 << 11]>,
    firsts: Vec<usize>,
}

impl Pages {
    fn place(addr: usize) -> usize {
        ((addr as u64 >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize
    }
}

impl Index for Pages {
    const NAME: &'static str = INDEXES[3];

    fn new(firsts: &[usize]) -> Self {
        let mut ranks = Box::new([u16::MAX; 1 << 11]);
        for (&first, rank) in firsts.iter().zip(1..) {
            ranks[Self::place(first)] = rank;
        }
        let firsts = iter::once(0)
            .chain(firsts.iter().copied())
            .chain([usize::MAX])
            .collect();
        Self { ranks, firsts }
    }

    #[inline]
    fn rank(&self, addr: usize) -> usize {
        let guess = usize::from(self.ranks[Self::place(addr)]);
        match self.firsts.get(guess..guess.saturating_add(2)) {
            Some(&[first, next]) if (first..next).contains(&addr) => guess,
            _ => self.firsts[1..self.firsts.len() - 1].partition_point(|&first| first <= addr),
        }
    }
}

/// An entry for each of 64 Ki addresses: for ports. 128 KiB, however few devices there are.
struct Every(Box<[u16]>);

impl Index for Every {
    const NAME: &'static str = INDEXES[4];

    fn new(firsts: &[usize]) -> Self {
        let ranks = (0..=0xffff).map(|port| firsts.partition_point(|&first| first <= port) as u16);
        Self(ranks.collect())
    }

    #[inline]
    fn rank(&self, addr: usize) -> usize {
        usize::from(self.0[addr & 0xffff])
    }
}

fn time<I: Index>(criterion: &mut Criterion, firsts: &[usize], addrs: &[usize]) {
    let index = I::new(firsts);
    for &addr in addrs {
        let rank = firsts.partition_point(|&first| first <= addr);
        assert_eq!(index.rank(addr), rank, "{} at {addr:#x}", I::NAME);
    }
    let mut group = criterion.benchmark_group(scenario::index(firsts.len()));
    group.bench_function(I::NAME, |b| {
        b.iter_custom(|n| {
            let start = Instant::now();
            for &addr in addrs.iter().cycle().take(n as usize) {
                black_box(index.rank(black_box(addr)));
            }
            start.elapsed()
        });
    });
    group.finish();
}

fn index(criterion: &mut Criterion) {
    for devices in INDEXED {
        let addrs: Vec<_> = accesses::<GuestPhysAddrRange>(Pattern::Random, devices)
            .iter()
            .map(|access| access.addr.as_usize())
            .collect();
        let first = |i| GuestPhysAddrRange::address(i * GuestPhysAddrRange::STRIDE).as_usize();
        let firsts: Vec<_> = (0..devices).map(first).collect();
        time::<Standard>(criterion, &firsts, &addrs);
        time::<Linear>(criterion, &firsts, &addrs);
        time::<Eytzinger>(criterion, &firsts, &addrs);
        time::<Pages>(criterion, &firsts, &addrs);
        // The same distances, as far as there are ports.
        let port = |addr: usize| (addr - first(0)) / 0x1000 * 8;
        let firsts: Vec<_> = firsts.iter().map(|&addr| port(addr)).collect();
        let addrs: Vec<_> = addrs.iter().map(|&addr| port(addr)).collect();
        time::<Every>(criterion, &firsts, &addrs);
    }
}

criterion_group!(benches, index);
criterion_main!(benches);
