//! How long a test goes on.

use std::{
    env,
    time::{Duration, Instant},
};

/// A time, and a number of rounds in any case.
pub(crate) struct Budget {
    until: Instant,
    rounds: usize,
}

impl Budget {
    /// As many seconds as the environment says or one, and `rounds` rounds at least. Under Miri, whose
    /// clock is no measure, `miri` rounds alone.
    pub(crate) fn new(rounds: usize, miri: usize) -> Self {
        let seconds = match env::var("AXDEVICE_TORTURE_SECONDS") {
            _ if cfg!(miri) => 0,
            Ok(seconds) => seconds.parse().expect("a number of seconds"),
            Err(_) => 1,
        };
        Self {
            until: Instant::now() + Duration::from_secs(seconds),
            rounds: if cfg!(miri) { miri } else { rounds },
        }
    }

    /// The numbers of the rounds.
    pub(crate) fn rounds(self) -> impl Iterator<Item = usize> {
        (0..).take_while(move |&round| round < self.rounds || Instant::now() < self.until)
    }
}
