//! Reads, by pattern, layout and number of devices.

use std::hint::black_box;

use axaddrspace::{
    GuestPhysAddrRange as Mmio,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use benches::{Bus, Layout, Nothing, Pattern};

use crate::{Scenario, Setting};

/// The seed of the random ranges.
const SEED: u64 = 22;

/// The layouts that are counted with many devices too.
const MANY: [&str; 3] = ["pages", "large", "random ranges"];
/// The layouts on which misses are counted too.
const MISSES: [&str; 2] = ["pages", "random ranges"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let direct = Scenario::new("direct-call", direct_calls);
    let layouts = Mmio::layouts(SEED).into_iter();
    [direct]
        .into_iter()
        .chain(plain())
        .chain(layouts.flat_map(of_layout))
        .collect()
}

/// Reads on the plain layout of each bus.
fn plain() -> Vec<Scenario> {
    let mmio = Setting::plain::<Mmio>;
    vec![
        by_reference::<Mmio>("hot-8", mmio(Pattern::Hot, 8)),
        by_handle::<Mmio>("hot-8", mmio(Pattern::Hot, 8)),
        by_handle::<Mmio>("hot-4096", mmio(Pattern::Hot, 4096)),
        by_reference::<Mmio>("random-64-pages", mmio(Pattern::Random, 64)),
        by_reference::<Mmio>("random-1024-pages", mmio(Pattern::Random, 1024)),
        by_handle::<Mmio>("random-8-pages", mmio(Pattern::Random, 8)),
        by_reference::<PortRange>("port-hot-8", Setting::hot::<PortRange>()),
        by_handle::<PortRange>("port-hot-8", Setting::hot::<PortRange>()),
        by_reference::<SysRegAddrRange>("sys-reg-hot-8", Setting::hot::<SysRegAddrRange>()),
        by_handle::<SysRegAddrRange>("sys-reg-hot-8", Setting::hot::<SysRegAddrRange>()),
    ]
}

/// Random reads and misses on a layout.
fn of_layout(layout: Layout) -> Vec<Scenario> {
    let scenario = |pattern: Pattern, devices| {
        let name = format!("{} {devices} {}", pattern.name(), layout.name).replace(' ', "-");
        let setting = Setting {
            layout,
            pattern,
            devices,
        };
        (name, setting)
    };
    let handle = |(name, setting): (String, _)| by_handle::<Mmio>(&name, setting);
    let mut all = vec![handle(scenario(Pattern::Random, 64))];
    if MANY.contains(&layout.name) {
        all.extend([1024, 4096].map(|devices| handle(scenario(Pattern::Random, devices))));
    }
    if MISSES.contains(&layout.name) {
        for (name, setting) in [Pattern::NearMiss, Pattern::FarMiss].map(|p| scenario(p, 64)) {
            all.push(by_reference::<Mmio>(&name, setting));
            all.push(by_handle::<Mmio>(&name, setting));
        }
    }
    all
}

/// By `&self`.
fn by_reference<R: Bus>(name: &str, setting: Setting) -> Scenario {
    Scenario::new(format!("read-{name}"), move |n| {
        let registry = setting.registry::<R>();
        setting.count::<R>(n, |addr| {
            black_box(R::read(&registry, addr).unwrap_or(R::FLOATING));
        });
    })
}

/// By a vCPU's own handle.
fn by_handle<R: Bus>(name: &str, setting: Setting) -> Scenario {
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
