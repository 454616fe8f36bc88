//! The sequence of addresses that a vCPU accesses. It is generated before the timed part.

use busmap::Span;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rand_distr::Zipf;

use crate::{bus::Bus, layout::Layout};

/// The number of accesses before they repeat: too many for a branch predictor to learn, few enough
/// for the core's own cache.
const ACCESSES: usize = 1 << 14;

/// The number of addresses above a device that count as near it.
const NEAR: u64 = 0x1000;

/// One access of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Access<R: Bus> {
    /// The number of the device there, if there is one.
    pub device: Option<usize>,
    /// The address.
    pub addr: R::Addr,
}

impl<R: Bus> Access<R> {
    fn within(device: Option<usize>, span: Span, rng: &mut SmallRng) -> Self {
        let addr = R::address(anywhere(span, R::ACCESS, rng));
        Self { device, addr }
    }

    /// The value that a read must return.
    pub fn reads_as(self) -> usize {
        self.device.map_or(R::FLOATING, R::value)
    }
}

/// A random address in a span for an access of `len` addresses: a multiple of `len`, if such an access fits.
fn anywhere(span: Span, len: u64, rng: &mut SmallRng) -> u64 {
    let highest = span.last() - (len - 1);
    let lowest = span.first().next_multiple_of(len);
    match highest.checked_sub(lowest) {
        Some(beyond) => lowest + len * rng.random_range(0..=beyond / len),
        None => rng.random_range(span.first()..=highest),
    }
}

/// The distribution of accesses over devices. The address within a device is always random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All to the device in the middle.
    Hot,
    /// To each device equally often. If the layout has a favourite, half of the accesses go to it.
    Random,
    /// By Zipf's law: to the `k`th most popular device `1/k` times as often as to the most popular one.
    Zipf,
    /// To unused addresses above a device, at most a page from its end. Each such gap is equally likely.
    NearMiss,
    /// To the lower half of the unused addresses below all devices, or the upper half of those above all.
    FarMiss,
}

impl Pattern {
    /// All patterns.
    pub const ALL: [Self; 5] = [
        Self::Hot,
        Self::Random,
        Self::Zipf,
        Self::NearMiss,
        Self::FarMiss,
    ];

    /// The pattern's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Random => "random",
            Self::Zipf => "zipf",
            Self::NearMiss => "near miss",
            Self::FarMiss => "far miss",
        }
    }

    /// Whether no device owns the accessed addresses.
    pub const fn is_miss(self) -> bool {
        matches!(self, Self::NearMiss | Self::FarMiss)
    }
}

/// Accesses to `n` devices, the same in every run.
pub fn accesses<R: Bus>(layout: &Layout, pattern: Pattern, n: usize) -> Vec<Access<R>> {
    let spans = layout.spans(n);
    let mut rng = SmallRng::seed_from_u64(n as u64);
    match pattern {
        Pattern::Hot => to_devices(&spans, &mut rng, |_| n / 2),
        Pattern::Random => match layout.favourite(n).filter(|_| n > 1) {
            None => to_devices(&spans, &mut rng, |rng| rng.random_range(0..n)),
            Some(favourite) => to_devices(&spans, &mut rng, |rng| {
                let another = (favourite + rng.random_range(1..n)) % n;
                [favourite, another][usize::from(rng.random_bool(0.5))]
            }),
        },
        Pattern::Zipf => {
            // The popularity of a device does not depend on its address.
            let mut devices: Vec<_> = (0..n).collect();
            devices.shuffle(&mut rng);
            let ranks = Zipf::new(n as f64, 1.0).expect("there are devices");
            to_devices(&spans, &mut rng, |rng| {
                devices[rng.sample(ranks) as usize - 1]
            })
        }
        Pattern::NearMiss => to_none(&gaps::<R>(&spans), &mut rng),
        Pattern::FarMiss => to_none(&far::<R>(&spans), &mut rng),
    }
}

/// Accesses to one of `n` devices.
pub fn repeated<R: Bus>(layout: &Layout, device: usize, n: usize) -> Vec<Access<R>> {
    let mut rng = SmallRng::seed_from_u64(device as u64);
    to_devices(&layout.spans(n), &mut rng, |_| device)
}

fn to_devices<R: Bus>(
    spans: &[Span],
    rng: &mut SmallRng,
    mut next: impl FnMut(&mut SmallRng) -> usize,
) -> Vec<Access<R>> {
    let mut access = || {
        let device = next(rng);
        Access::within(Some(device), spans[device], rng)
    };
    (0..ACCESSES).map(|_| access()).collect()
}

fn to_none<R: Bus>(unused: &[Span], rng: &mut SmallRng) -> Vec<Access<R>> {
    let mut access = || {
        let nth = rng.random_range(0..unused.len());
        Access::within(None, unused[nth], rng)
    };
    (0..ACCESSES).map(|_| access()).collect()
}

/// The unused addresses near the ends of devices, where an access fits.
fn gaps<R: Bus>(spans: &[Span]) -> Vec<Span> {
    let mut spans = spans.to_vec();
    spans.sort_unstable_by_key(|span| span.first());
    let ends = spans.iter().map(|span| span.last());
    let next = spans.iter().skip(1).map(|span| span.first() - 1);
    ends.zip(next.chain([R::LAST]))
        .filter_map(|(end, last)| Span::new(end + 1, last.min(end + NEAR)))
        .filter(|gap| gap.last() - gap.first() >= R::ACCESS - 1)
        .collect()
}

/// The lower half of the unused addresses below all devices, and the upper half of those above all.
fn far<R: Bus>(spans: &[Span]) -> [Span; 2] {
    let lowest = spans.iter().map(|span| span.first()).min();
    let highest = spans.iter().map(|span| span.last()).max();
    let (lowest, highest) = lowest.zip(highest).expect("there are devices");
    let above = highest.midpoint(R::LAST);
    [(0, lowest / 2), (above + 1, R::LAST)]
        .map(|(first, last)| Span::new(first, last).expect("the bus has more addresses"))
}

#[cfg(test)]
mod tests {
    use axaddrspace::{
        GuestPhysAddrRange as Mmio,
        device::{PortRange, SysRegAddrRange},
    };

    use super::*;
    use crate::layout::seed;

    fn counts(layout: &Layout, pattern: Pattern, n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        for access in accesses::<Mmio>(layout, pattern, n) {
            counts[access.device.expect("a hit")] += 1;
        }
        counts.sort_unstable();
        counts
    }

    #[test]
    fn each_pattern_spreads_accesses_over_the_devices_as_documented() {
        let pages = Mmio::plain();
        let hot = counts(&pages, Pattern::Hot, 8);
        assert_eq!(hot, [0, 0, 0, 0, 0, 0, 0, ACCESSES]);
        let random = counts(&pages, Pattern::Random, 8);
        let evenly = |&count: &usize| count.abs_diff(ACCESSES / 8) < ACCESSES / 40;
        assert!(random.iter().all(evenly));
        let zipf = counts(&pages, Pattern::Zipf, 8);
        assert!((1.8..2.2).contains(&(zipf[7] as f64 / zipf[6] as f64)));
    }

    #[test]
    fn a_favourite_takes_half() {
        let large = Mmio::layouts(0)[2];
        assert_eq!(large.name, "large");
        assert_eq!(counts(&large, Pattern::Random, 1), [ACCESSES]);
        let counts = counts(&large, Pattern::Random, 8);
        assert!(counts[7].abs_diff(ACCESSES / 2) < ACCESSES / 40);
        assert!(counts[0] > ACCESSES / 20);
    }

    #[test]
    fn an_access_is_wholly_in_its_span() {
        let mut rng = SmallRng::seed_from_u64(0);
        let mut begins = |first, length| {
            let span = Span::with_length(first, length).expect("a span");
            let mut begins: Vec<_> = (0..100).map(|_| anywhere(span, 4, &mut rng)).collect();
            begins.sort_unstable();
            begins.dedup();
            begins
        };
        assert_eq!(begins(8, 12), [8, 12, 16]);
        assert_eq!(begins(7, 12), [8, 12]);
        assert_eq!(begins(5, 4), [5]);
        assert_eq!(begins(5, 5), [5, 6]);
    }

    /// Checks that the device of an access owns its address. If the access has no device, no device owns it.
    fn check<R: Bus>(layout: &Layout, pattern: Pattern, n: usize) {
        let ranges: Vec<_> = layout.spans(n).into_iter().map(R::range).collect();
        for access in accesses::<R>(layout, pattern, n).into_iter().take(200) {
            let owner = ranges.iter().position(|range| range.contains(access.addr));
            assert_eq!(owner, access.device, "{layout:?} of {n}: {access:?}");
            assert_eq!(owner.is_none(), pattern.is_miss());
        }
    }

    fn check_all<R: Bus>() {
        for layout in R::layouts(seed()) {
            for pattern in Pattern::ALL {
                for n in [1, 8, 300] {
                    check::<R>(&layout, pattern, n);
                }
            }
        }
    }

    #[test]
    fn accesses_are_for_their_devices() {
        check_all::<Mmio>();
        check_all::<SysRegAddrRange>();
        check_all::<PortRange>();
    }

    #[test]
    fn misses_touch_no_device() {
        let spans = [(0x1001, 7), (0x1009, 3), (0x8_0000, 0x100)];
        let spans = spans.map(|(first, length)| Span::with_length(first, length).expect("a span"));
        let near = [(0x100c, 0x200b), (0x8_0100, 0x8_10ff)];
        let near = near.map(|(first, last)| Span::new(first, last).expect("a span"));
        assert_eq!(gaps::<Mmio>(&spans), near);
        let [below, above] = far::<Mmio>(&spans);
        assert_eq!((below.first(), below.last()), (0, 0x800));
        assert!(above.first() > 1 << 46 && above.last() == Mmio::LAST);
    }
}
