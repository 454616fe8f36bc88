//! The time of one read of a device that does nothing: by bus, layout, pattern and number of devices, and by
//! vCPUs. Writes the seed of the random layouts into cargo's folder for temporary files, as `seed-CELL`.

use std::{
    fs,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use axaddrspace::{
    GuestPhysAddrRange as Mmio,
    device::{PortRange, SysRegAddrRange},
};
use benches::{
    Access, Bus, CELL, Layout, Pattern, Registry, SEED, Vcpu, Visitor, accesses, all, dispatch,
    on_any_bus, on_any_layout, repeated,
    scenario::{self, DEVICES, LINEAR, RUST_VMM, RUST_VMM_PATTERNS, SIZES, Sharing},
    seed,
};
use busmap::Span;
use criterion::{Criterion, criterion_group, criterion_main};

/// The number of accesses that a vCPU makes before it is timed, because its first ones set things up.
const WARM_UP: u64 = 1_000;

/// Each registry's time for the same accesses.
struct Timed<'c, R: Bus> {
    criterion: &'c mut Criterion,
    scenario: String,
    devices: Vec<Span>,
    /// Whether registries that search linearly are timed too.
    linear: bool,
    /// One list for each vCPU.
    accesses: Vec<Vec<Access<R>>>,
}

impl<R: Bus> Visitor<R> for Timed<'_, R> {
    fn visit<T: Registry<R>>(&mut self) {
        let misses = self.accesses[0][0].device.is_none();
        if (misses && !T::MISSES) || (T::LINEAR && !self.linear) {
            return;
        }
        let registry = T::with(&self.devices);
        let mut group = self.criterion.benchmark_group(&self.scenario);
        group.bench_function(T::NAME, |b| match &self.accesses[..] {
            [accesses] => b.iter_custom(|n| alone(&mut registry.vcpu(), accesses, n)),
            all => b.iter_custom(|n| together(&registry, all, n)),
        });
        group.finish();
    }
}

/// One vCPU's time for `n` accesses.
fn alone<R: Bus, V: Vcpu<R>>(vcpu: &mut V, accesses: &[Access<R>], n: u64) -> Duration {
    let targets: Vec<_> = accesses.iter().map(|&access| vcpu.aim(access)).collect();
    dispatch(vcpu, &targets, WARM_UP);
    let start = Instant::now();
    dispatch(vcpu, &targets, n);
    start.elapsed()
}

/// The time in which each of several vCPUs makes `n` accesses, all at once: the average over the vCPUs.
fn together<R: Bus, T: Registry<R>>(registry: &T, all: &[Vec<Access<R>>], n: u64) -> Duration {
    let start = Barrier::new(all.len());
    let total: Duration = thread::scope(|scope| {
        let vcpus: Vec<_> = all
            .iter()
            .map(|accesses| {
                scope.spawn(|| {
                    start.wait();
                    alone(&mut registry.vcpu(), accesses, n)
                })
            })
            .collect();
        let times = vcpus
            .into_iter()
            .map(|vcpu| vcpu.join().expect("no vCPU panics"));
        times.sum()
    });
    total / all.len() as u32
}

/// Accesses of one vCPU to `n` devices of a layout.
fn timed<'c, R: Bus>(
    criterion: &'c mut Criterion,
    scenario: String,
    layout: &Layout,
    pattern: Pattern,
    n: usize,
) -> Timed<'c, R> {
    Timed {
        criterion,
        scenario,
        devices: layout.spans(n),
        linear: n <= LINEAR,
        accesses: vec![accesses(layout, pattern, n)],
    }
}

/// Visits each pattern and size of a layout.
fn sweep<R: Bus>(criterion: &mut Criterion, layout: &Layout, visit: impl Fn(Timed<'_, R>)) {
    for pattern in Pattern::ALL {
        for n in SIZES {
            let scenario = scenario::sweep::<R>(layout, pattern, n);
            visit(timed(criterion, scenario, layout, pattern, n));
        }
    }
}

fn buses(criterion: &mut Criterion) {
    let seed = seed();
    println!("The random layouts use {SEED}={seed}.");
    let path = format!("{}/seed-{CELL}", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, seed.to_string()).expect("cargo made the folder");
    mmio(criterion, &Mmio::layouts(seed));
    other_bus::<SysRegAddrRange>(criterion, seed);
    other_bus::<PortRange>(criterion, seed);
}

fn mmio(criterion: &mut Criterion, layouts: &[Layout]) {
    sweep(criterion, &layouts[0], |timed| {
        all(&mut Timed {
            linear: true,
            ..timed
        });
    });
    for layout in &layouts[1..] {
        sweep(criterion, layout, |mut timed| on_any_layout(&mut timed));
    }
}

fn other_bus<R: Bus>(criterion: &mut Criterion, seed: u64) {
    for layout in R::layouts(seed) {
        sweep::<R>(criterion, &layout, |mut timed| on_any_bus(&mut timed));
    }
}

fn vcpus(criterion: &mut Criterion) {
    let layout = Mmio::plain();
    for sharing in Sharing::ALL {
        for n in scenario::vcpu_counts() {
            let accesses = |vcpu| repeated(&layout, sharing.device(vcpu), DEVICES);
            all(&mut Timed {
                criterion,
                scenario: scenario::vcpus(n, sharing),
                devices: layout.spans(DEVICES),
                linear: true,
                accesses: (0..n).map(accesses).collect(),
            });
        }
    }
}

fn rust_vmm(criterion: &mut Criterion) {
    let layout = Mmio::plain();
    for pattern in RUST_VMM_PATTERNS {
        for n in RUST_VMM {
            let scenario = scenario::rust_vmm(pattern, n);
            benches::rust_vmm(&mut timed(criterion, scenario, &layout, pattern, n));
        }
    }
}

/// Short measurements, because there are more than a thousand.
fn quick() -> Criterion {
    config()
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(120))
}

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20)
        .nresamples(2_000)
        .without_plots()
}

criterion_group!(name = layouts; config = quick(); targets = buses);
criterion_group!(name = others; config = config(); targets = vcpus, rust_vmm);
criterion_main!(layouts, others);
