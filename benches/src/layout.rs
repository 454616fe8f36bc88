//! [`Layout`]: where the devices of a bus lie.

pub(crate) mod cursor;
pub(crate) mod mmio;
pub(crate) mod port;
pub(crate) mod scattered;
pub(crate) mod sys_reg;
mod virt;

use std::{
    env,
    hash::{BuildHasher, RandomState},
};

use busmap::Span;
use rand::{SeedableRng, rngs::SmallRng};

use crate::bus::Bus;

/// The environment variable with the seed of the random ranges.
pub const SEED: &str = "LAYOUT_SEED";

/// Places so many devices. The random numbers are the same each time.
type Place = fn(usize, &mut SmallRng) -> Vec<Span>;

/// A way to place any number of devices on a bus.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The layout's name, unique on its bus.
    pub name: &'static str,
    place: Place,
    seed: u64,
    middle_takes_half: bool,
}

impl Layout {
    pub(crate) const fn new(name: &'static str, place: Place) -> Self {
        Self {
            name,
            place,
            seed: 0,
            middle_takes_half: false,
        }
    }

    /// The same with other random numbers.
    pub(crate) const fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same, whose device in the middle takes half of the random accesses.
    pub(crate) const fn with_favourite(self) -> Self {
        Self {
            middle_takes_half: true,
            ..self
        }
    }

    /// The first layout of a bus, which serves where layouts are not compared. Its first devices stay where
    /// they are, however many there are.
    pub fn plain<R: Bus>() -> Self {
        R::layouts(0)[0]
    }

    /// What each of `n` devices owns.
    pub fn spans(&self, n: usize) -> Vec<Span> {
        (self.place)(n, &mut SmallRng::seed_from_u64(self.seed))
    }

    /// The one of `n` devices that takes half of the random accesses, if one does.
    pub(crate) fn favourite(&self, n: usize) -> Option<usize> {
        self.middle_takes_half.then_some(n / 2)
    }
}

/// The seed of the random ranges: what the environment variable [`SEED`] gives, or another in each run.
///
/// # Panics
///
/// If the variable is no number.
pub fn seed() -> u64 {
    match env::var(SEED) {
        Ok(seed) => seed.parse().expect("LAYOUT_SEED is a number"),
        // Few digits are typed sooner.
        Err(_) => RandomState::new().hash_one(()) % 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use axaddrspace::{
        GuestPhysAddrRange,
        device::{PortRange, SysRegAddrRange},
    };

    use super::*;
    use crate::scenario::SIZES;

    fn check<R: Bus + Debug>() {
        let seed = seed();
        println!("{}: {SEED}={seed}", R::NAME);
        for layout in R::layouts(seed) {
            for n in SIZES {
                let mut spans = layout.spans(n);
                assert_eq!(spans, layout.spans(n), "{}", layout.name);
                assert_eq!(spans.len(), n, "{}", layout.name);
                spans.sort_by_key(|span| span.first());
                let mut pairs = spans.windows(2);
                assert!(
                    pairs.all(|pair| pair[0].last() < pair[1].first()),
                    "{layout:?} of {n}"
                );
                let long = |span: &Span| span.last() - span.first() + 1 >= R::ACCESS;
                assert!(spans.iter().all(long), "{layout:?} of {n}");
                assert!(spans[0].first() > 0 && spans[n - 1].last() < R::LAST);
            }
        }
        let plain = Layout::plain::<R>();
        assert_eq!(plain.spans(64)[..8], plain.spans(8));
    }

    #[test]
    fn each_layout_places_as_many_as_are_asked_for_and_none_twice() {
        check::<GuestPhysAddrRange>();
        check::<SysRegAddrRange>();
        check::<PortRange>();
    }

    #[test]
    fn random_ranges_are_those_of_their_seed() {
        let spans = |seed| GuestPhysAddrRange::layouts(seed)[6].spans(8);
        assert_eq!(GuestPhysAddrRange::layouts(1)[6].name, mmio::RANDOM);
        assert_eq!(spans(1), spans(1));
        assert_ne!(spans(1), spans(2));
    }
}
