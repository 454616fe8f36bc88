//! [`Layout`]: the addresses of the devices of a bus.

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

    /// Random ranges, which depend on `seed`.
    pub(crate) const fn random(place: Place, seed: u64) -> Self {
        Self {
            seed,
            ..Self::new("random ranges", place)
        }
    }

    /// The same layout, except that the device in the middle gets half of the random accesses.
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

    /// The number of the device, of `n`, that gets half of the random accesses, if there is one.
    pub(crate) fn favourite(&self, n: usize) -> Option<usize> {
        self.middle_takes_half.then_some(n / 2)
    }
}

/// The seed of the random ranges: the value of the environment variable [`SEED`], or another one in each run.
///
/// # Panics
///
/// If the variable is not a number.
pub fn seed() -> u64 {
    match env::var(SEED) {
        Ok(seed) => seed.parse().expect("LAYOUT_SEED is a number"),
        // Few digits, because a user may type them.
        Err(_) => RandomState::new().hash_one(()) % 1_000_000,
    }
}
