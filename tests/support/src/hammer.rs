//! Many vCPUs that access one device as often as they can.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use ax_errno::AxResult;

use crate::size::size;

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

/// Repeats `access` on each vCPU for `time`; under Miri, where the clock does not measure real time, five times.
/// Returns the accesses that each vCPU made after all had started.
///
/// # Panics
///
/// If an access fails.
pub fn hammer<T>(time: Duration, access: impl Fn() -> AxResult<T> + Sync) -> Vec<Accesses> {
    let (vcpus, stop) = (vcpus(), AtomicBool::new(false));
    let (here, completed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Returns the number of accesses that other vCPUs completed during this one.
    let access = || {
        let before = completed.load(Relaxed);
        let done = access();
        done.expect("no access fails because another vCPU is there");
        completed.fetch_add(1, Relaxed) - before
    };
    let vcpu = || {
        access();
        here.fetch_add(1, Relaxed);
        // Also ends if another vCPU has failed and never starts.
        while here.load(Relaxed) < vcpus && !stop.load(Relaxed) {
            access();
        }
        let mut accesses = Accesses::default();
        while accesses.all < 5 || !cfg!(miri) && !stop.load(Relaxed) {
            let others = access();
            accesses.all += 1;
            accesses.overtaken += usize::from(others > 0);
            accesses.starved += usize::from(others > 2 * vcpus);
        }
        accesses
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..vcpus).map(|_| scope.spawn(vcpu)).collect();
        while here.load(Relaxed) < vcpus && !running.iter().any(ScopedJoinHandle::is_finished) {
            thread::yield_now();
        }
        if !cfg!(miri) {
            thread::sleep(time);
        }
        stop.store(true, Relaxed);
        running
            .into_iter()
            .map(|vcpu| vcpu.join().unwrap())
            .collect()
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
