//! Reads, by pattern, layout and number of devices.

use std::hint::black_box;

use axaddrspace::{
    GuestPhysAddrRange as Mmio,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use axdevice_benches::{Bus, Layout, Nothing, Pattern};

use crate::{Scenario, Setting};

/// The seed of the random ranges.
const SEED: u64 = 22;

/// The layouts of which many devices are counted.
const LARGE: [&str; 3] = ["pages", "large", "random ranges"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = vec![Scenario::new("direct-call", direct_calls)];
    let hot = |devices| Setting::plain::<Mmio>(Pattern::Hot, devices);
    all.extend(both::<Mmio>("hot-8", hot(8)));
    all.push(handle::<Mmio>("hot-4096", hot(4096)));
    all.push(handle::<Mmio>(
        "random-8",
        Setting::plain::<Mmio>(Pattern::Random, 8),
    ));
    all.extend(both::<PortRange>("port-hot-8", Setting::hot::<PortRange>()));
    all.extend(both::<SysRegAddrRange>(
        "sys-reg-hot-8",
        Setting::hot::<SysRegAddrRange>(),
    ));
    for layout in Mmio::layouts(SEED) {
        all.extend(of_layout(layout));
    }
    all
}

/// Random accesses and misses.
fn of_layout(layout: Layout) -> Vec<Scenario> {
    let setting = |pattern, devices| Setting {
        layout,
        pattern,
        devices,
    };
    let name = |pattern: Pattern, devices| {
        format!("{} {devices} {}", pattern.name(), layout.name).replace(' ', "-")
    };
    let many: &[usize] = if LARGE.contains(&layout.name) {
        &[64, 1024, 4096]
    } else {
        &[64]
    };
    let patterns = [Pattern::Random, Pattern::NearMiss, Pattern::FarMiss];
    let counted = patterns.into_iter().flat_map(|pattern| {
        many.iter().flat_map(move |&devices| {
            both::<Mmio>(&name(pattern, devices), setting(pattern, devices))
        })
    });
    counted.collect()
}

/// By `&self`, and by a vCPU's own handle.
fn both<R: Bus>(name: &str, setting: Setting) -> [Scenario; 2] {
    let by_reference = Scenario::new(format!("read-{name}"), move |n| {
        let registry = setting.registry::<R>();
        setting.count::<R>(n, |addr| {
            black_box(R::read(&registry, addr).unwrap_or(R::FLOATING));
        });
    });
    [by_reference, handle::<R>(name, setting)]
}

/// By a vCPU's own handle.
fn handle<R: Bus>(name: &str, setting: Setting) -> Scenario {
    Scenario::new(format!("handle-read-{name}"), move |n| {
        let registry = setting.registry::<R>();
        let mut dispatcher = registry.dispatcher();
        setting.count::<R>(n, |addr| {
            black_box(R::read_by(&mut dispatcher, addr).unwrap_or(R::FLOATING));
        });
    })
}

/// The virtual call alone.
fn direct_calls(n: usize) {
    let setting = Setting::hot::<Mmio>();
    let span = setting.layout.spans(1)[0];
    let device: Box<dyn BaseDeviceOps<Mmio>> = Box::new(Nothing::new(4, span));
    setting.count::<Mmio>(n, |addr| {
        let read = black_box(&*device).handle_read(addr, Mmio::WIDTH);
        black_box(read.unwrap_or(Mmio::FLOATING));
    });
}
