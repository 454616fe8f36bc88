//! How long a test goes on.

use std::{
    env,
    time::{Duration, Instant},
};
use support::size;

/// As many seconds as the environment says, or `default`.
pub(crate) fn seconds_or(default: u64) -> Duration {
    let seconds = env::var("AXDEVICE_TORTURE_SECONDS").map_or(default, |seconds| {
        seconds.parse().expect("a number of seconds")
    });
    Duration::from_secs(seconds)
}

/// A time, and a number of rounds in any case.
pub(crate) struct Budget {
    until: Instant,
    rounds: usize,
}

impl Budget {
    /// As many seconds as the environment says or one, and `rounds` rounds at least. Under Miri, whose
    /// clock is no measure, `miri` rounds alone.
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
