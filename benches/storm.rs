//! The time of a single dispatch while devices are hot-added, and while nothing changes.
//!
//! Each round has its own registry, so the table does not grow without end. Quiet and stormy rounds
//! alternate, so disturbances of the machine affect both. Every dispatch is timed by itself, with the
//! processor's time stamps. They are read in order before and after it, so each time contains one such
//! reading. Writes `storm-CELL.csv` into cargo's folder for temporary files.

use std::{
    fmt::Write,
    fs,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axaddrspace::GuestPhysAddrRange;
use benches::{
    Access, Bus, CELL, ChangeVisitor, Changeable, Nothing, Pattern, Vcpu, accesses, changeable,
};
use busmap::Span;
use hdrhistogram::Histogram;
use quanta::Clock;

/// The number of devices when a round begins.
const DEVICES: usize = 256;
/// The number of devices that are added in a round.
const ADDS: usize = 64;
/// The time from one hot-add to the next.
const PACE: Duration = Duration::from_millis(1);
/// The number of rounds of each kind.
const ROUNDS: usize = 25;
/// The number of dispatches that a vCPU makes before it checks whether the round is over.
const BURST: usize = 64;

/// The longest time that is recorded, in ticks: some minutes. Longer ones count as this.
const LONGEST: u64 = 1 << 40;

/// Times in ticks.
type Times = Histogram<u64>;

fn times() -> Times {
    Histogram::new_with_max(LONGEST, 3).expect("the bounds are valid")
}

/// Reads the clock after all earlier instructions have completed, and before any later one begins.
/// Otherwise the processor reads it while it still waits for the value of a dispatch.
fn now(clock: &Clock) -> u64 {
    in_order();
    let ticks = clock.raw();
    in_order();
    ticks
}

#[cfg(target_arch = "x86_64")]
fn in_order() {
    // SAFETY: the instruction is part of SSE2, which every x86_64 processor has.
    unsafe { std::arch::x86_64::_mm_lfence() };
}

#[cfg(not(target_arch = "x86_64"))]
fn in_order() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// The results of all rounds of one kind.
struct Weather {
    dispatches: Times,
    adds: Times,
}

impl Weather {
    fn new() -> Self {
        Self {
            dispatches: times(),
            adds: times(),
        }
    }
}

/// A vCPU that dispatches until the round is over, and times each dispatch.
fn vcpu<V: Vcpu<GuestPhysAddrRange>>(
    mut vcpu: V,
    accesses: &[Access<GuestPhysAddrRange>],
    clock: &Clock,
    over: &AtomicBool,
) -> Times {
    let mut times = times();
    let targets: Vec<_> = accesses.iter().map(|&access| vcpu.aim(access)).collect();
    for burst in targets.chunks(BURST).cycle() {
        for &target in burst {
            let start = now(clock);
            std::hint::black_box(vcpu.read(std::hint::black_box(target)));
            times.saturating_record(now(clock).saturating_sub(start));
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    times
}

/// Adds the devices after the first `DEVICES`, one each `PACE`. In a quiet round it only waits.
fn add<T: Changeable>(
    registry: &T,
    spans: &[Span],
    stormy: bool,
    clock: &Clock,
    times: &mut Times,
) {
    let mut next = Instant::now();
    for device in Nothing::all(spans).skip(DEVICES) {
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if stormy {
            let start = now(clock);
            registry.add(device);
            times.saturating_record(now(clock).saturating_sub(start));
        }
    }
}

fn round<T: Changeable>(stormy: bool, vcpus: usize, clock: &Clock, weather: &mut Weather) {
    let layout = GuestPhysAddrRange::plain();
    let spans = layout.spans(DEVICES + ADDS);
    let registry = T::with(&spans[..DEVICES]);
    let accesses = accesses(&layout, Pattern::Random, DEVICES);
    let (start, over) = (Barrier::new(vcpus + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let work = || {
            let dispatching = registry.vcpu();
            start.wait();
            vcpu(dispatching, &accesses, clock, &over)
        };
        let vcpus: Vec<_> = (0..vcpus).map(|_| scope.spawn(work)).collect();
        start.wait();
        add(&registry, &spans, stormy, clock, &mut weather.adds);
        over.store(true, Ordering::Relaxed);
        for vcpu in vcpus {
            weather.dispatches += vcpu.join().expect("no vCPU panics");
        }
    });
}

/// The rows of the table so far.
struct Storm {
    rounds: usize,
    vcpus: usize,
    clock: Clock,
    csv: String,
}

impl Storm {
    /// Records the resolution of the clock: the differences of successive readings that differ.
    fn step(&mut self) {
        let readings: Vec<_> = (0..10_000).map(|_| self.clock.raw()).collect();
        let steps = readings
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]));
        let mut times = times();
        steps
            .filter(|&step| step > 0)
            .for_each(|step| times.saturating_record(step));
        self.row("clock", "step", &times);
    }

    fn row(&mut self, name: &str, weather: &str, times: &Times) {
        // Converts 1,000 times the ticks, because the conversion rounds.
        let nanoseconds = |ticks| self.clock.delta_as_nanos(0, ticks * 1_000) as f64 / 1e3;
        let at = |quantile| nanoseconds(times.value_at_quantile(quantile));
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
        let count = times.len();
        println!(
            "{name:20} {weather:6} {count:9} p50 {p50:8.1} p99 {p99:8.1} p99.9 {p999:9.1} max {max:10.1} ns"
        );
        writeln!(
            self.csv,
            "{name},{weather},{count},{p50:.1},{p99:.1},{p999:.1},{max:.1}"
        )
        .expect("writing to a string succeeds");
    }
}

impl ChangeVisitor for Storm {
    fn visit<T: Changeable>(&mut self) {
        let mut quiet = Weather::new();
        let mut storm = Weather::new();
        for _ in 0..self.rounds {
            round::<T>(false, self.vcpus, &self.clock, &mut quiet);
            round::<T>(true, self.vcpus, &self.clock, &mut storm);
        }
        self.row(T::NAME, "quiet", &quiet.dispatches);
        self.row(T::NAME, "storm", &storm.dispatches);
        self.row(T::NAME, "adds", &storm.adds);
    }
}

fn main() {
    let short = std::env::args().any(|arg| arg == "--test");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut storm = Storm {
        rounds: if short { 1 } else { ROUNDS },
        // One core is left for the writer.
        vcpus: (cores - 1).max(1),
        clock: Clock::new(),
        csv: String::from("registry,weather,count,p50,p99,p99.9,max\n"),
    };
    storm.step();
    changeable(&mut storm);
    if !short {
        let path = format!("{}/storm-{CELL}.csv", env!("CARGO_TARGET_TMPDIR"));
        fs::write(&path, storm.csv).expect("cargo made the folder");
        println!("written to {path}");
    }
}
