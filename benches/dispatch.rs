//! The time of one read of a device that does nothing: by pattern and number of devices, by vCPUs,
//! by bus.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_benches::{
    Access, Bus, Pattern, Registry, Vcpu, Visitor, accesses, all, dispatch, on_any_bus, repeated,
    scenario::{self, DEVICES, RUST_VMM, RUST_VMM_PATTERNS, SIZES, Sharing},
};
use criterion::{Criterion, criterion_group, criterion_main};

/// How many accesses a vCPU makes before it is timed: its first ones set things up.
const WARM_UP: u64 = 1_000;

/// Each registry's time for the same accesses.
struct Timed<'c, R: Bus> {
    criterion: &'c mut Criterion,
    scenario: String,
    devices: usize,
    /// One list for each vCPU.
    accesses: Vec<Vec<Access<R>>>,
}

impl<R: Bus> Visitor<R> for Timed<'_, R> {
    fn visit<T: Registry<R>>(&mut self) {
        let misses = self.accesses[0][0].device.is_none();
        if misses && !T::MISSES {
            return;
        }
        let registry = T::with(self.devices);
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

/// The time in which several vCPUs, at once, make `n` accesses each, on average.
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

fn sweep(criterion: &mut Criterion) {
    for pattern in Pattern::ALL {
        for n in SIZES {
            all(&mut Timed {
                criterion,
                scenario: scenario::sweep(pattern, n),
                devices: n,
                accesses: vec![accesses::<GuestPhysAddrRange>(pattern, n)],
            });
        }
    }
}

fn vcpus(criterion: &mut Criterion) {
    for sharing in Sharing::ALL {
        for n in scenario::vcpu_counts() {
            all(&mut Timed {
                criterion,
                scenario: scenario::vcpus(n, sharing),
                devices: DEVICES,
                accesses: (0..n).map(|vcpu| repeated(sharing.device(vcpu))).collect(),
            });
        }
    }
}

fn bus<R: Bus>(criterion: &mut Criterion) {
    on_any_bus(&mut Timed {
        criterion,
        scenario: scenario::on_bus(R::NAME),
        devices: DEVICES,
        accesses: vec![accesses::<R>(Pattern::Random, DEVICES)],
    });
}

fn buses(criterion: &mut Criterion) {
    bus::<GuestPhysAddrRange>(criterion);
    bus::<SysRegAddrRange>(criterion);
    bus::<PortRange>(criterion);
}

fn rust_vmm(criterion: &mut Criterion) {
    for pattern in RUST_VMM_PATTERNS {
        for n in RUST_VMM {
            axdevice_benches::rust_vmm(&mut Timed {
                criterion,
                scenario: scenario::rust_vmm(pattern, n),
                devices: n,
                accesses: vec![accesses::<GuestPhysAddrRange>(pattern, n)],
            });
        }
    }
}

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20)
        .nresamples(2_000)
        .without_plots()
}

criterion_group!(name = benches; config = config(); targets = sweep, vcpus, buses, rust_vmm);
criterion_main!(benches);
