//! Writes to registers of interrupt controllers, through their guards.

use std::hint::black_box;

use axaddrspace::GuestPhysAddrRange as Mmio;
use axdevice::{AxVmDevices, Unbound};
use benches::{
    Bus,
    guarded::{Register, at, distributor, redistributor, registers},
};

use crate::{Scenario, Setting};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        guarded("gicd-write", "GICD_ISENABLER1"),
        guarded("gicr-write", "GICR_ISENABLER0"),
        guarded("gicv2-write", "GICv2 GICD_ISENABLER0"),
        guarded("plic-write", "PLIC enable bits"),
        guarded("plic-completion", "PLIC claim/complete"),
        embedded("gicd-write", distributor::<Unbound>, 0x104),
        embedded("gicd-group-write", distributor::<Unbound>, 0x84),
        embedded("gicr-write", redistributor::<Unbound>, 0x1_0100),
    ]
}

/// Writes to a register in a registry that vCPUs share.
fn guarded(name: &str, register: &'static str) -> Scenario {
    Scenario::new(format!("guarded-{name}"), move |n| {
        let found = registers().into_iter().find(|r| r.name == register);
        let Register { addr, guarded, .. } = found.expect("there is such a register");
        Setting::hot::<Mmio>().count::<Mmio>(n, |_| {
            let written = guarded.handle_mmio_write(black_box(addr), Mmio::WIDTH, 7);
            black_box(written.is_ok());
        });
    })
}

/// Writes to the register at an offset of the device in an embedder's registry.
fn embedded(name: &str, devices: fn() -> AxVmDevices, offset: usize) -> Scenario {
    Scenario::new(format!("embedded-{name}"), move |n| {
        let devices = devices();
        Setting::hot::<Mmio>().count::<Mmio>(n, |_| {
            let written = devices.handle_mmio_write(black_box(at(offset)), Mmio::WIDTH, 7);
            black_box(written.is_ok());
        });
    })
}
