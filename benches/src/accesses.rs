//! Which addresses a vCPU accesses in turn, made before anything is timed.

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rand_distr::Zipf;

use crate::bus::Bus;

/// How many accesses there are before they repeat: too many for a branch predictor to learn, few
/// enough for the cache next to the core.
const ACCESSES: usize = 1 << 14;

/// One access of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Access<R: Bus> {
    /// The number of the device there, if there is one.
    pub device: Option<usize>,
    /// Where.
    pub addr: R::Addr,
}

impl<R: Bus> Access<R> {
    /// The first or the second register of a device.
    fn to(device: usize, register: usize) -> Self {
        Self {
            device: Some(device),
            addr: R::address(device * R::STRIDE + 4 * (register % 2)),
        }
    }

    /// Between a device and the next.
    fn beyond(device: usize) -> Self {
        Self {
            device: None,
            addr: R::address(device * R::STRIDE + R::STRIDE / 2),
        }
    }

    /// What a read must give.
    pub fn reads_as(self) -> usize {
        self.device.map_or(R::FLOATING, |i| i + 1)
    }
}

/// How accesses spread over devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All to the device in the middle.
    Hot,
    /// To each device equally often.
    Random,
    /// To the `k`th most popular device `1/k` times as often as to the first, as Zipf's law has it.
    Zipf,
    /// To the gaps between the devices, each equally often.
    Miss,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hot, Self::Random, Self::Zipf, Self::Miss];

    /// The pattern's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Random => "random",
            Self::Zipf => "zipf",
            Self::Miss => "miss",
        }
    }
}

/// Accesses to `n` devices, the same in every run.
pub fn accesses<R: Bus>(pattern: Pattern, n: usize) -> Vec<Access<R>> {
    let mut rng = SmallRng::seed_from_u64(n as u64);
    match pattern {
        Pattern::Hot => repeated(n / 2),
        Pattern::Random => made(|k| Access::to(rng.random_range(0..n), k)),
        Pattern::Zipf => {
            // Which devices are popular has nothing to do with where they lie.
            let mut devices: Vec<_> = (0..n).collect();
            devices.shuffle(&mut rng);
            let ranks = Zipf::new(n as f64, 1.0).expect("there are devices");
            made(|k| Access::to(devices[rng.sample(ranks) as usize - 1], k))
        }
        Pattern::Miss => made(|_| Access::beyond(rng.random_range(0..n))),
    }
}

/// Accesses to one device.
pub fn repeated<R: Bus>(device: usize) -> Vec<Access<R>> {
    made(|k| Access::to(device, k))
}

fn made<R: Bus>(access: impl FnMut(usize) -> Access<R>) -> Vec<Access<R>> {
    (0..ACCESSES).map(access).collect()
}

#[cfg(test)]
mod tests {
    use axaddrspace::{GuestPhysAddrRange, device::PortRange};

    use super::*;

    fn counts(pattern: Pattern, n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        for access in accesses::<GuestPhysAddrRange>(pattern, n) {
            counts[access.device.expect("a hit")] += 1;
        }
        counts.sort_unstable();
        counts
    }

    #[test]
    fn patterns_are_what_they_are_called() {
        assert_eq!(counts(Pattern::Hot, 8), [0, 0, 0, 0, 0, 0, 0, ACCESSES]);
        let random = counts(Pattern::Random, 8);
        assert!(
            random
                .iter()
                .all(|&count| count.abs_diff(ACCESSES / 8) < ACCESSES / 40)
        );
        let zipf = counts(Pattern::Zipf, 8);
        assert!((1.8..2.2).contains(&(zipf[7] as f64 / zipf[6] as f64)));
        let misses = accesses::<PortRange>(Pattern::Miss, 8);
        assert!(misses.iter().all(|miss| miss.device.is_none()));
    }
}
