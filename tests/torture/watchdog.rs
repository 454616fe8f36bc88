//! Ends the process if a test makes no progress.

use std::{
    process,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

/// The longest time without progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watchdog, for as long as it is kept.
pub(crate) struct Watchdog(Sender<()>);

impl Watchdog {
    /// Sets a watchdog on a test.
    pub(crate) fn new(test: &'static str) -> Self {
        let (feed, fed) = mpsc::channel();
        thread::spawn(move || {
            loop {
                match fed.recv_timeout(PATIENCE) {
                    Ok(()) => (),
                    Err(RecvTimeoutError::Disconnected) => return,
                    // Miri has its own clock, and detects a deadlock itself.
                    Err(RecvTimeoutError::Timeout) if cfg!(miri) => (),
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("{test} has not moved for {PATIENCE:?}");
                        process::abort();
                    }
                }
            }
        });
        Self(feed)
    }

    /// Reports that the test makes progress.
    pub(crate) fn feed(&self) {
        self.0
            .send(())
            .expect("the watchdog listens as long as this is here");
    }
}
