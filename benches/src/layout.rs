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

/// The environment variable with the seed of the random ranges.
pub const SEED: &str = "LAYOUT_SEED";

/// Places this number of devices. The random numbers are the same each time.
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

    /// Devices at random, which a seed chooses.
    pub(crate) const fn random(place: Place, seed: u64) -> Self {
        Self {
            seed,
            ..Self::new("random ranges", place)
        }
    }

    /// The same, whose device in the middle takes half of the random accesses.
    pub(crate) const fn with_favourite(self) -> Self {
        Self {
            middle_takes_half: true,
            ..self
        }
    }

    /// The span of each of `n` devices.
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
