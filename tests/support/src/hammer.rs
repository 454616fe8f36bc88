//! Many vCPUs that access one device as often as they can.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use ax_errno::AxResult;

use crate::size::size;

/// The least number of accesses of each vCPU.
const LEAST: usize = size(100, 5);

/// The time in which each vCPU makes them on a busy machine, unless an access waits forever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The accesses of one vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accesses {
    /// Their number.
    pub all: usize,
    /// The number of accesses during which other vCPUs completed at least one.
    pub overtaken: usize,
    /// The number of accesses during which other vCPUs completed more than twice as many as there are vCPUs.
    pub starved: usize,
}

/// The number of vCPUs: eight for each core, so most of them wait for a core.
fn vcpus() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    size(8 * cores, 3)
}

/// Repeats `access` on each vCPU, without a pause, for `time` and until each vCPU has made 100 accesses; under Miri, where
/// the clock does not measure real time, until each has made five. Returns the accesses that each vCPU made after all had
/// started.
///
/// # Panics
///
/// If an access fails, or if a vCPU does not complete its accesses while the others continue.
pub fn hammer<T>(time: Duration, access: impl Fn() -> AxResult<T> + Sync) -> Vec<Accesses> {
    let (vcpus, stop) = (vcpus(), AtomicBool::new(false));
    let [here, done, completed] = [const { AtomicUsize::new(0) }; 3];
    // Returns the number of accesses that other vCPUs completed during this one.
    let access = || {
        let before = completed.load(Relaxed);
        let answered = access();
        answered.expect("no access fails because another vCPU is there");
        completed.fetch_add(1, Relaxed) - before
    };
    let vcpu = || {
        access();
        here.fetch_add(1, Relaxed);
        while here.load(Relaxed) < vcpus && !stop.load(Relaxed) {
            access();
        }
        let mut accesses = Accesses::default();
        while !stop.load(Relaxed) {
            let others = access();
            accesses.all += 1;
            accesses.overtaken += usize::from(others > 0);
            accesses.starved += usize::from(others > 2 * vcpus);
            if accesses.all == LEAST {
                done.fetch_add(1, Relaxed);
            }
        }
        accesses
    };
    let started = Instant::now();
    let time = if cfg!(miri) { Duration::ZERO } else { time };
    thread::scope(|scope| {
        let running: Vec<_> = (0..vcpus).map(|_| scope.spawn(vcpu)).collect();
        let is_complete = || done.load(Relaxed) == vcpus && started.elapsed() >= time;
        let has_failed = || running.iter().any(ScopedJoinHandle::is_finished);
        while !is_complete() && !has_failed() && started.elapsed() < time + PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Relaxed);
        let accesses = running.into_iter().map(|vcpu| vcpu.join().unwrap());
        let accesses: Vec<_> = accesses.collect();
        assert_eq!(done.load(Relaxed), vcpus, "one starves: {accesses:?}");
        accesses
    })
}

/// Checks that the number of starved accesses is at most a hundredth of the overtaken ones, plus two for each vCPU.
/// With a fair lock an access starves only if the vCPU loses its core after the access begins and before it waits: on
/// idle cores one in ten thousand.
///
/// The numbers of accesses prove nothing: a vCPU that the scheduler stops makes none, and one that is alone makes
/// hundreds of times as many as one that waits. Under Miri too few are made to judge.
///
/// # Panics
///
/// If more starved.
pub fn assert_fair(accesses: &[Accesses]) {
    let sum = |count: fn(&Accesses) -> usize| accesses.iter().map(count).sum::<usize>();
    let (all, overtaken, starved) = (sum(|a| a.all), sum(|a| a.overtaken), sum(|a| a.starved));
    println!("{all} accesses: {overtaken} overtaken, {starved} of them starved");
    let allowed = overtaken / 100 + 2 * accesses.len();
    assert!(starved <= size(allowed, all), "{accesses:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accesses(all: usize, overtaken: usize, starved: usize) -> Accesses {
        Accesses {
            all,
            overtaken,
            starved,
        }
    }

    #[test]
    fn waiting_in_turn_is_fair() {
        assert_fair(&[accesses(1_000, 1_000, 0), accesses(1_000, 1_000, 10)]);
    }

    #[test]
    fn losing_the_core_now_and_then_is_fair() {
        assert_fair(&[accesses(20, 10, 2), accesses(100_000, 10, 2)]);
    }

    #[test]
    #[should_panic]
    fn a_lock_that_goes_to_the_fastest_is_unfair() {
        assert_fair(&[accesses(30_000, 20, 16), accesses(30_000, 20, 16)]);
    }

    #[test]
    fn each_vcpu_makes_the_least_number_of_accesses() {
        let accesses = hammer(Duration::ZERO, || Ok(()));
        assert_eq!(accesses.len(), vcpus());
        assert!(accesses.iter().all(|of| of.all >= LEAST));
    }
}
