//! Many vCPUs that access one device as often as they can.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use ax_errno::AxResult;

use crate::size::size;

/// The number of vCPUs: eight for each core, so most of them wait for a core.
fn vcpus() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    size(8 * cores, 3)
}

/// Repeats `access` on each vCPU for `time`; under Miri, where the clock does not measure real time, five times.
/// Returns the number of accesses that each vCPU made after all had started, because a vCPU that is alone is hundreds
/// of times as fast.
///
/// # Panics
///
/// If an access fails.
pub fn hammer<T>(time: Duration, access: impl Fn() -> AxResult<T> + Sync) -> Vec<usize> {
    let (vcpus, stop) = (vcpus(), AtomicBool::new(false));
    let here = AtomicUsize::new(0);
    let access = || {
        let done = access();
        done.expect("no access fails because another vCPU is there");
    };
    let vcpu = || {
        access();
        here.fetch_add(1, Relaxed);
        // Also ends if another vCPU has failed and never starts.
        while here.load(Relaxed) < vcpus && !stop.load(Relaxed) {
            access();
        }
        let mut accesses = 0;
        while accesses < 5 || !cfg!(miri) && !stop.load(Relaxed) {
            access();
            accesses += 1;
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

/// Checks that the slowest vCPU made at least half of its fair share of the accesses.
///
/// # Panics
///
/// If it made fewer.
pub fn assert_fair(accesses: &[usize]) {
    let share = accesses.iter().sum::<usize>() / accesses.len();
    let slowest = accesses.iter().min();
    println!("{share} accesses a vCPU; each: {accesses:?}");
    assert!(slowest >= Some(&(share / 2)), "one of {accesses:?} starves");
}
