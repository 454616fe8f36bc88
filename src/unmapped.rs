//! [`Unmapped`]: what an access does that no device answers.

use core::fmt;

use crossbeam_utils::CachePadded;
use log::{Level, error, log_enabled};

use crate::sync::{AtomicU64, Ordering};

/// What an access does that no device answers: one to an address that nobody owns, or one that runs
/// past the end of the device that it starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmapped {
    /// Panics with "emu_device not found", as 0.4.10 did: the guest can bring the host down. An
    /// access past a device's end, for which 0.4.10 did not panic, is
    /// [`InvalidInput`](ax_errno::AxError::InvalidInput).
    Panic,
    /// Gives [`NotFound`](ax_errno::AxError::NotFound).
    Error,
    /// Reads as an undriven bus does, all ones of the access's width (system registers: zero), and
    /// drops what is written.
    Float,
}

impl Default for Unmapped {
    /// [`Panic`](Self::Panic), as in 0.4.10; with the cargo feature `float-unmapped`,
    /// [`Float`](Self::Float).
    fn default() -> Self {
        if cfg!(feature = "float-unmapped") {
            Self::Float
        } else {
            Self::Panic
        }
    }
}

/// How many misses are logged one by one before only every power of two is.
const LOGGED_SINGLY: u64 = 8;

/// Tells of misses, and of fewer the more there are, so that no guest can flood the host's console.
///
/// While errors are not logged at all, a miss writes nothing.
#[derive(Debug, Default)]
pub(crate) struct MissLog(CachePadded<AtomicU64>);

impl MissLog {
    /// Logs an access that no device answered.
    pub(crate) fn note(&self, miss: impl fmt::Display) {
        if !log_enabled!(Level::Error) {
            return;
        }
        // A mere count (`Relaxed`), which takes centuries to come round.
        let n = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if is_logged(n) {
            error!("emu_device not found: {miss} (miss {n} of this VM)");
        }
    }
}

/// Whether the `n`th miss is logged.
const fn is_logged(n: u64) -> bool {
    n <= LOGGED_SINGLY || n.is_power_of_two()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_that_of_the_feature() {
        let float = cfg!(feature = "float-unmapped");
        let default = if float {
            Unmapped::Float
        } else {
            Unmapped::Panic
        };
        assert_eq!(Unmapped::default(), default);
    }

    #[test]
    fn a_flood_of_misses_is_logged_logarithmically() {
        let logged = (1..=1 << 20).filter(|&n| is_logged(n)).count();
        assert_eq!(logged, 8 + 17);
        assert!((1..=LOGGED_SINGLY).all(is_logged));
        assert!(!is_logged(LOGGED_SINGLY + 1));
    }

    #[test]
    fn a_miss_is_not_counted_while_errors_are_not_logged() {
        let misses = MissLog::default();
        misses.note("an access");
        let counted = misses.0.load(Ordering::Relaxed);
        assert_eq!(counted, u64::from(log_enabled!(Level::Error)));
    }
}
