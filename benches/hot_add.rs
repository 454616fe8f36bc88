//! The time of one hot-add by the number of devices that are there already.

use axdevice::SharedVmDevices;
use axdevice_benches::{Nothing, Registry};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

fn hot_add(c: &mut Criterion) {
    let mut group = c.benchmark_group("hot-add");
    for n in [8, 64, 1024] {
        group.bench_function(format!("to {n}"), |b| {
            b.iter_batched(
                || (SharedVmDevices::with(n), Nothing::new(n)),
                |(devices, new)| {
                    devices
                        .add_mmio_dev(new)
                        .expect("the devices do not overlap");
                    devices
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, hot_add);
criterion_main!(benches);
