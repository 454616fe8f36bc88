//! The duration of a test.

use std::{
    env,
    time::{Duration, Instant},
};
use support::size;

/// The number of seconds in the environment, or `default`.
pub(crate) fn seconds_or(default: u64) -> Duration {
    let seconds = env::var("AXDEVICE_TORTURE_SECONDS").map_or(default, |seconds| {
        seconds.parse().expect("a number of seconds")
    });
    Duration::from_secs(seconds)
}

/// A minimum time, and a minimum number of rounds.
pub(crate) struct Budget {
    until: Instant,
    rounds: usize,
}

impl Budget {
    /// The number of seconds in the environment, or one second, and at least `rounds` rounds. Under Miri, where the
    /// clock does not measure real time, only `miri` rounds.
    pub(crate) fn new(rounds: usize, miri: usize) -> Self {
        let time = if cfg!(miri) {
            Duration::ZERO
        } else {
            seconds_or(1)
        };
        Self {
            until: Instant::now() + time,
            rounds: size(rounds, miri),
        }
    }

    /// The numbers of the rounds.
    pub(crate) fn rounds(self) -> impl Iterator<Item = usize> {
        (0..).take_while(move |&round| round < self.rounds || Instant::now() < self.until)
    }
}
