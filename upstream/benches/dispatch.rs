//! Prints a table of the times of a 4-byte MMIO read of a device that does nothing, in nanoseconds. One run measures
//! all ways alternately.

// The locks of axdevice 0.8.5, which nothing here takes.
#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use axdevice::DeviceRuntime;
use axdevice_base::{
    AccessWidth, BusKind, Device, DeviceAccess, DeviceContext, DeviceRegistry, DeviceResult,
    DeviceVcpuId, Resource,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use upstream::{Devices, Entry, VcpuDevices};

const BASE: u64 = 0x1000_0000;
const STRIDE: u64 = 0x2000;
const LENGTH: u64 = 0x1000;
/// The number of accesses in a batch: small enough that most batches are not interrupted.
const BATCH: usize = 2_048;
const BATCHES: usize = 400;

struct Idle {
    number: u64,
    resources: [Resource; 1],
}

impl Idle {
    fn new(number: u64) -> Arc<Self> {
        let (base, size) = (BASE + number * STRIDE, LENGTH);
        let resources = [Resource::MmioRange { base, size }];
        Arc::new(Self { number, resources })
    }
}

impl Device for Idle {
    fn name(&self) -> &str {
        "idle"
    }

    fn resources(&self) -> &[Resource] {
        &self.resources
    }

    fn read(&self, _: &DeviceAccess, _: &mut dyn DeviceContext) -> DeviceResult<u64> {
        Ok(self.number)
    }

    fn write(&self, _: &DeviceAccess, _: u64, _: &mut dyn DeviceContext) -> DeviceResult {
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Pattern {
    Hot,
    Random,
    Miss,
}

/// The addresses of a vCPU, at random offsets in the devices, or beside them.
fn accesses(pattern: Pattern, devices: u64, vcpu: u64, seed: u64) -> Vec<DeviceAccess> {
    let mut rng = StdRng::seed_from_u64(seed ^ vcpu);
    let mut access = || {
        let device = match pattern {
            Pattern::Hot => devices / 2,
            Pattern::Random | Pattern::Miss => rng.random_range(0..devices),
        };
        let beside = if matches!(pattern, Pattern::Miss) {
            LENGTH
        } else {
            0
        };
        let offset = beside + 4 * rng.random_range(0..LENGTH / 4);
        let vcpu = DeviceVcpuId::new(vcpu as usize);
        let addr = BASE + device * STRIDE + offset;
        DeviceAccess::new(vcpu, BusKind::Mmio, addr, AccessWidth::Dword)
    };
    (0..8 * BATCH).map(|_| access()).collect()
}

/// The lower quartile of the time of an access, of batches on `vcpus` threads at once.
fn time<V: FnMut(&DeviceAccess) + Send>(
    lists: &[Vec<DeviceAccess>],
    vcpu: impl Fn() -> V + Sync,
) -> f64 {
    let start = Barrier::new(lists.len());
    let times = thread::scope(|scope| {
        let threads: Vec<_> = lists
            .iter()
            .map(|list| {
                scope.spawn(|| {
                    let mut access = vcpu();
                    start.wait();
                    let batches = list.chunks(BATCH).cycle().take(BATCHES);
                    let time = |batch: &[DeviceAccess]| {
                        let start = Instant::now();
                        batch.iter().for_each(|one| access(black_box(one)));
                        start.elapsed().as_secs_f64() * 1e9 / BATCH as f64
                    };
                    batches.map(time).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let mut times: Vec<f64> = times;
    times.sort_by(f64::total_cmp);
    times[times.len() / 4]
}

fn main() {
    let seed = std::env::var("SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("SEED={seed}\n");
    println!(
        "| devices, accesses, vCPUs | `DeviceRuntime` | as axvm calls it | `Devices`, `&self` | `VcpuDevices` |"
    );
    println!("|---|---|---|---|---|");
    for devices in [8, 64, 1024] {
        let mut runtime = DeviceRuntime::default();
        let ours = Devices::default();
        for number in 0..devices {
            runtime.register(Idle::new(number)).expect("free");
            ours.register(Entry::new(Idle::new(number))).expect("free");
        }
        let runtime = Arc::new(runtime);
        // axvm 0.8.5: src/vm/mod.rs, `get_devices`.
        let locked = spin::Mutex::new(Some(runtime.clone()));
        let patterns = [
            (Pattern::Hot, "hot"),
            (Pattern::Random, "random"),
            (Pattern::Miss, "miss"),
        ];
        for (pattern, name) in patterns {
            for vcpus in [1, 2] {
                let lists: Vec<_> = (0..vcpus)
                    .map(|vcpu| accesses(pattern, devices, vcpu, seed))
                    .collect();
                let direct = time(&lists, || {
                    |one: &DeviceAccess| {
                        black_box(runtime.try_read(one)).ok();
                    }
                });
                let as_axvm = time(&lists, || {
                    |one: &DeviceAccess| {
                        let devices = locked.lock().as_ref().expect("set up").clone();
                        black_box(devices.try_read(one)).ok();
                    }
                });
                let by_self = time(&lists, || {
                    |one: &DeviceAccess| {
                        black_box(ours.try_read(one)).ok();
                    }
                });
                let by_handle = time(&lists, || {
                    let mut vcpu = VcpuDevices::new(&ours);
                    move |one: &DeviceAccess| {
                        black_box(vcpu.try_read(one)).ok();
                    }
                });
                println!(
                    "| {devices}, {name}, {vcpus} | {direct:.1} | {as_axvm:.1} | {by_self:.1} | {by_handle:.1} |"
                );
            }
        }
    }
}
