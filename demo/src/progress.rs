//! The progress of vCPUs in an interval, and whether a vCPU made little because it had no CPU.
//!
//! A vCPU that is starved differs from one that fails: it asks for a CPU and does not get enough time on it, runs
//! rounds at the usual pace when it has one, and makes the expected accesses in each round.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    task::Times,
    units::{counted, time},
};

/// More CPU time than any round takes: in KVM a round takes some milliseconds.
const ROUND: Duration = Duration::from_millis(200);

/// The state of a vCPU at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) at: Instant,
    pub(crate) rounds: u64,
    /// From the scheduler, if the system provides it.
    pub(crate) times: Option<Times>,
}

/// The progress of a vCPU between two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) lasted: Duration,
    pub(crate) rounds: u64,
    /// `None` if the system does not provide it.
    pub(crate) share: Option<Share>,
}

/// The CPU time that a thread had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) ran: Duration,
    /// The time in which it neither ran nor waited for a CPU.
    pub(crate) idle: Duration,
}

impl Stretch {
    /// From one time to a later one.
    pub(crate) fn between(from: &Progress, to: &Progress) -> Self {
        let lasted = to.at.saturating_duration_since(from.at);
        let share = |from: Times, to: Times| {
            let ran = to.ran.saturating_sub(from.ran);
            let waited = to.waited.saturating_sub(from.waited);
            // The scheduler counts a wait when it ends. For a runnable thread, the rest of the time is a wait.
            let idle = match to.runnable {
                true => Duration::ZERO,
                false => lasted.saturating_sub(ran + waited),
            };
            Share { ran, idle }
        };
        Self {
            lasted,
            rounds: to.rounds - from.rounds,
            share: from.times.zip(to.times).map(|(from, to)| share(from, to)),
        }
    }

    /// Whether the vCPU began and ended a round in this time.
    pub(crate) fn has_whole_round(&self) -> bool {
        // The first round that ended had begun before.
        self.rounds >= 2
    }

    /// Whether too little CPU time is the reason for the vCPU's little progress. `false` if that is unknown.
    pub(crate) fn is_starved(&self) -> bool {
        self.share.is_some_and(|share| {
            let asked = share.idle <= self.lasted / 2;
            let at_pace = share.ran.as_secs_f64() <= ROUND.as_secs_f64() * (self.rounds + 1) as f64;
            asked && at_pace
        })
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |duration: Duration| time(duration.as_nanos() as u64);
        write!(f, "in the last {} it ", text(self.lasted))?;
        if let Some(Share { ran, idle }) = self.share {
            write!(f, "had a CPU for {}, ", text(ran))?;
            write!(f, "was idle for {}, ", text(idle))?;
        }
        write!(f, "did {}", counted(self.rounds, "round"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Five seconds of a thread that ran and waited for this long.
    fn stretch(ran_ms: u64, waited_ms: u64, runnable: bool, rounds: u64) -> Stretch {
        let at = Instant::now();
        let progress = |at, rounds, [ran, waited]: [u64; 2]| Progress {
            at,
            rounds,
            times: Some(Times {
                ran: Duration::from_millis(ran),
                waited: Duration::from_millis(waited),
                runnable,
            }),
        };
        let from = progress(at, 7, [300, 400]);
        let to = progress(at + 5 * SECOND, 7 + rounds, [300 + ran_ms, 400 + waited_ms]);
        Stretch::between(&from, &to)
    }

    #[test]
    fn a_vcpu_without_a_cpu_is_starved() {
        // It still waits, so the scheduler has not counted the wait.
        assert!(stretch(0, 0, true, 0).is_starved());
        assert!(stretch(60, 4900, false, 20).is_starved());
        // A share of two CPUs for four vCPUs.
        assert!(stretch(2500, 2500, true, 1000).is_starved());
    }

    #[test]
    fn a_vcpu_that_has_a_cpu_and_comes_no_further_is_not_starved() {
        assert!(!stretch(4900, 100, true, 0).is_starved());
        // Even with little of it.
        assert!(!stretch(250, 4750, true, 0).is_starved());
        // Or if it is slow.
        assert!(!stretch(2500, 2500, true, 5).is_starved());
    }

    #[test]
    fn a_vcpu_that_does_not_ask_for_a_cpu_is_not_starved() {
        assert!(!stretch(0, 0, false, 0).is_starved());
        assert!(!stretch(10, 1000, false, 2).is_starved());
    }

    #[test]
    fn a_stretch_without_cpu_times_is_not_starved() {
        let (from, to) = (
            Instant::now(),
            Progress {
                at: Instant::now() + SECOND,
                rounds: 1,
                times: None,
            },
        );
        let from = Progress { at: from, ..to };
        assert!(!Stretch::between(&from, &to).is_starved());
    }

    #[test]
    fn a_stretch_displays_its_cpu_time_idle_time_and_rounds() {
        let said = stretch(60, 3940, false, 1).to_string();
        assert_eq!(
            said,
            "in the last 5.00 s it had a CPU for 60.0 ms, was idle for 1.00 s, did 1 round"
        );
    }
}
