//! The time of one hot-add by the number of devices that are there already, and that of copying as
//! many bytes as this crate's takes.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use axaddrspace::GuestPhysAddrRange;
use benches::{Bus, ChangeVisitor, Changeable, Nothing, changeable, scenario};
use busmap::Span;
use criterion::{Criterion, criterion_group, criterion_main};

/// One device in this many is added before the registry is made again.
const GROWTH: usize = 16;

struct Timed<'c> {
    criterion: &'c mut Criterion,
    devices: usize,
    /// The spans of those and of the new ones.
    spans: Vec<Span>,
    /// How many bytes the first hot-add allocated: that of this crate, which is visited first.
    bytes: Option<u64>,
}

impl ChangeVisitor for Timed<'_> {
    fn visit<T: Changeable>(&mut self) {
        let devices = self.devices;
        let registry = T::with(&self.spans[..devices]);
        let new = Nothing::new(devices, self.spans[devices]);
        let allocated = measure(|| registry.add(new));
        self.bytes.get_or_insert(allocated.bytes_total);
        let mut group = self.criterion.benchmark_group(scenario::hot_add(devices));
        group.bench_function(T::NAME, |b| {
            b.iter_custom(|n| adds::<T>(&self.spans, devices, n))
        });
        group.finish();
    }
}

/// The time of `n` hot-adds to about this number of devices, a few to each of some registries.
fn adds<T: Changeable>(spans: &[Span], devices: usize, n: u64) -> Duration {
    let mut left = n as usize;
    let mut time = Duration::ZERO;
    while left > 0 {
        let registry = T::with(&spans[..devices]);
        let new = Nothing::all(spans).skip(devices).take(left);
        let new: Vec<_> = new.collect();
        left -= new.len();
        let start = Instant::now();
        new.into_iter().for_each(|device| registry.add(device));
        time += start.elapsed();
    }
    time
}

fn memcpy(criterion: &mut Criterion, devices: usize, bytes: u64) {
    let from = vec![1_u8; bytes as usize];
    let mut to = vec![0_u8; bytes as usize];
    let mut group = criterion.benchmark_group(scenario::hot_add(devices));
    group.bench_function(scenario::MEMCPY, |b| {
        b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from)));
    });
    group.finish();
}

fn hot_add(criterion: &mut Criterion) {
    for devices in scenario::HOT_ADD {
        let growth = (devices / GROWTH).max(1);
        let mut timed = Timed {
            criterion,
            devices,
            spans: GuestPhysAddrRange::plain().spans(devices + growth),
            bytes: None,
        };
        changeable(&mut timed);
        let bytes = timed.bytes.expect("this crate can be changed");
        memcpy(criterion, devices, bytes);
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

criterion_group!(name = benches; config = config(); targets = hot_add);
criterion_main!(benches);
