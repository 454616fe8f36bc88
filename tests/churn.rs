//! Threads that start, dispatch and end while devices are added: they leave no memory behind.

use std::{
    alloc::System,
    iter,
    sync::{
        Barrier,
        mpsc::{self, Sender},
    },
    thread,
};

use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::SharedVmDevices;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{Echo, shared_registry};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated and not yet freed, by all threads.
fn live() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// The number of threads that start and end.
const THREADS: usize = 10_000;

/// The number of these threads at one time.
const ALIVE: usize = 8;

/// The number of devices that are added at the same time.
const DEVICES: usize = THREADS / ALIVE;

/// The bytes that may be left: by the test harness and, with arc-swap's cell, a node of at most 256 bytes for each
/// thread that lived at the same time, including the writer and the main thread. Twice this number is allowed, because
/// the next thread does not get a node that a writer looks at.
const LEFT: isize = match () {
    () if cfg!(feature = "slot-cell") => 1_024,
    () => 1_024 + 2 * 256 * (ALIVE as isize + 2),
};

/// Adds a device in each round.
fn fill(devices: &SharedVmDevices, rounds: impl Iterator<Item = ()>) {
    for (port, ()) in rounds.enumerate() {
        let device = Echo::<PortRange>::new(port, port);
        devices.add_port_dev(device).unwrap();
    }
}

/// Starts and ends `THREADS` threads, `ALIVE` at a time. Each such group is a round, which is sent to `rounds`.
fn churn(devices: &SharedVmDevices, rounds: Sender<()>) {
    let all = Barrier::new(ALIVE);
    for _ in 0..DEVICES {
        rounds.send(()).unwrap();
        thread::scope(|scope| {
            let visit = || {
                // The newest device may still be in the middle of its addition; any other one answers.
                let newest = devices.snapshot().port().count() as u16;
                let ports = [0, newest.saturating_sub(1), newest];
                let reads = ports.map(|at| devices.handle_port_read(Port(at), AccessWidth::Byte));
                all.wait();
                for (port, read) in ports.into_iter().zip(reads) {
                    let answer = Ok(usize::from(port) & 0xff);
                    assert!(read == answer || port >= newest, "{port}: {read:?}");
                }
            };
            let threads = [(); ALIVE].map(|()| scope.spawn(visit));
            // Waits for the end of the thread, not only of its work.
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
    }
}

/// The bytes that are live after `make`, and the bytes that are still live after the drop of its result.
fn left_by<T>(make: impl FnOnce() -> T) -> (isize, isize) {
    let before = live();
    let made = make();
    let with = live() - before;
    drop(made);
    (with, live() - before)
}

#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    let (quiet, _) = left_by(|| {
        let devices = shared_registry();
        fill(&devices, iter::repeat_n((), DEVICES));
        devices
    });
    let (busy, left) = left_by(|| {
        let (devices, (sender, rounds)) = (shared_registry(), mpsc::channel());
        thread::scope(|scope| {
            let writer = scope.spawn(|| fill(&devices, rounds.into_iter()));
            churn(&devices, sender);
            writer.join().unwrap();
        });
        // Frees the tables that were held at the last change.
        devices.reclaim();
        devices.reclaim();
        assert_eq!(devices.snapshot().port().count(), DEVICES);
        devices
    });
    println!("{quiet} bytes without threads, {busy} with; {left} outlast the registry");
    assert!(busy - quiet <= LEFT, "{} bytes more", busy - quiet);
    assert!(left <= LEFT, "{left} bytes are left");
}
