//! The time of one hot-add, by the number of devices already in the registry, and the time of copying
//! as many bytes as this crate's hot-add allocates.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use axaddrspace::GuestPhysAddrRange;
use benches::{Bus, ChangeVisitor, Changeable, Nothing, changeable, scenario};
use busmap::Span;
use criterion::{Criterion, criterion_group, criterion_main};

/// A registry grows by one in this many of its devices, then a new registry replaces it.
const GROWTH: usize = 16;

struct Timed<'c> {
    criterion: &'c mut Criterion,
    devices: usize,
    /// The spans of the `devices` first devices, and of the new ones.
    spans: Vec<Span>,
    /// The number of bytes that the first hot-add allocated. It is this crate's, which is visited first.
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

/// The time of `n` hot-adds to about this number of devices: a few hot-adds to each of several registries.
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
