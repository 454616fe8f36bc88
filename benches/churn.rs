//! The cost of short-lived threads on the chosen cell: the time of hot-adds, and the memory that stays allocated.
//!
//! The threads run in waves. Each thread dispatches and sleeps, while a writer hot-adds. A row shows the number of
//! threads alive at once and in all, the memory that is still allocated when the threads and the writer's registries
//! are gone, and the time of a hot-add.

use std::{alloc::System, env, sync::Barrier, thread, time::Instant};

use axaddrspace::GuestPhysAddrRange;
use axdevice::SharedVmDevices;
use benches::{Bus, Nothing};
use busmap::Span;
use hdrhistogram::Histogram;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated and not yet freed, by all threads.
fn live() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// The numbers of devices in a registry before and after the timed hot-adds.
const DEVICES: std::ops::Range<usize> = 8..24;

/// The spans that they own.
fn spans() -> Vec<Span> {
    GuestPhysAddrRange::plain().spans(DEVICES.end)
}

/// A registry of devices that own these spans.
fn registry(spans: &[Span]) -> SharedVmDevices {
    let devices = SharedVmDevices::default();
    Nothing::all(spans).for_each(|device| GuestPhysAddrRange::add(&devices, device));
    devices
}

/// Hot-adds to a registry, and records the time of each.
fn time_hot_adds(times: &mut Histogram<u64>) {
    let spans = spans();
    let devices = registry(&spans[..DEVICES.start]);
    for new in Nothing::all(&spans).skip(DEVICES.start) {
        let start = Instant::now();
        GuestPhysAddrRange::add(&devices, new);
        times.saturating_record(start.elapsed().as_nanos() as u64);
    }
}

/// Runs a wave of `alive` threads, and times a writer while they sleep.
fn wave(devices: &SharedVmDevices, alive: usize, times: &mut Histogram<u64>) {
    let first = GuestPhysAddrRange::address(spans()[0].first());
    let (dispatched, timed) = (Barrier::new(alive + 1), Barrier::new(alive + 1));
    thread::scope(|scope| {
        let visit = || {
            let read = GuestPhysAddrRange::read(devices, first);
            dispatched.wait();
            timed.wait();
            read.expect("the device is there");
        };
        let visitors: Vec<_> = (0..alive).map(|_| scope.spawn(visit)).collect();
        dispatched.wait();
        time_hot_adds(times);
        timed.wait();
        // Waits for the end of the thread, not only of its closure.
        for visitor in visitors {
            visitor.join().expect("a thread panicked");
        }
    });
}

fn main() {
    // As in criterion, `--test` runs everything once, with few threads.
    let small = env::args().any(|arg| arg == "--test");
    let devices = registry(&spans()[..1]);
    println!("alive at once | threads in all | bytes left | hot-add p50, p99, max (us)");
    for (alive, threads) in [
        (1, 1_000),
        (1, 10_000),
        (16, 10_000),
        (256, 10_240),
        (1, 10_000),
    ] {
        let threads = if small { alive } else { threads };
        let mut times = Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("valid bounds");
        let before = live();
        (0..threads / alive).for_each(|_| wave(&devices, alive, &mut times));
        let left = live() - before;
        let us = |nanos: u64| nanos as f64 / 1_000.0;
        println!(
            "{alive:13} | {threads:14} | {left:10} | {:.1}, {:.1}, {:.1}",
            us(times.value_at_quantile(0.5)),
            us(times.value_at_quantile(0.99)),
            us(times.max()),
        );
    }
}
