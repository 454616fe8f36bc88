//! The time of one MMIO read of a device that does nothing, on one vCPU: this crate against the
//! published 0.4.10, bare and in a `RwLock`, and against a call without any search.

use std::{hint::black_box, sync::RwLock};

use axdevice::SharedVmDevices;
use axdevice_benches::{Direct, Registry, address};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};

/// How many accesses a sequence has: a power of two, so that its index is cheap.
const ACCESSES: usize = 1 << 12;

/// The devices accessed in turn: always the one in the middle.
fn hot(n: usize) -> Vec<usize> {
    vec![n / 2; ACCESSES]
}

/// The devices accessed in turn: uniformly random, the same in every run.
fn random(n: usize) -> Vec<usize> {
    // Knuth's MMIX generator, of which the high bits are used.
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    std::iter::repeat_with(next).take(ACCESSES).collect()
}

fn reads<R: Registry>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    n: usize,
    order: &[usize],
) {
    let registry = R::with(n);
    let addresses: Vec<_> = order.iter().map(|&i| address(i)).collect();
    let mut at = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            at = (at + 1) % ACCESSES;
            black_box(&registry).read(black_box(addresses[at]))
        });
    });
}

fn scenario(c: &mut Criterion, name: &str, n: usize, order: &[usize]) {
    let mut group = c.benchmark_group(format!("{name} of {n}"));
    reads::<Direct>(&mut group, "direct call", n, order);
    reads::<SharedVmDevices>(&mut group, "handle_mmio_read", n, order);
    reads::<axdevice_0_4_10::AxVmDevices>(&mut group, "0.4.10", n, order);
    reads::<RwLock<axdevice_0_4_10::AxVmDevices>>(&mut group, "0.4.10 in RwLock", n, order);
    group.finish();
}

fn dispatch(c: &mut Criterion) {
    scenario(c, "hot", 8, &hot(8));
    for n in [8, 64, 1024] {
        scenario(c, "random", n, &random(n));
    }
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
