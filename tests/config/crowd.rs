//! Many vCPUs on each interrupt controller: no access fails, and no vCPU starves where accesses wait for each other.

use std::time::Duration;

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth::Dword;
use axdevice::{AxVmDevices, SharedVmDevices};
use axvmconfig::EmulatedDeviceConfig;
#[cfg(target_arch = "riscv64")]
use axvmconfig::EmulatedDeviceType::PPPTGlobal;
#[cfg(target_arch = "aarch64")]
use axvmconfig::EmulatedDeviceType::{
    GPPTDistributor, GPPTITS, GPPTRedistributor, InterruptController,
};
use support::{assert_fair, entry, hammer};

use crate::{
    common::{Shared, config},
    host::machine,
};

/// The time for which each register is accessed in each registry.
const TIME: Duration = Duration::from_secs(2);

/// A controller alone in a machine, and the address of one of its registers.
struct Controller {
    entry: EmulatedDeviceConfig,
    register: usize,
    /// Whether a write to it is alone in the device. If not, the scheduler alone determines the number of each vCPU's
    /// writes.
    alone: bool,
}

impl Controller {
    /// Lets many vCPUs write to the register.
    fn crowd(&self, write: impl Fn() -> AxResult + Sync) {
        let writes = hammer(TIME, write);
        if self.alone {
            assert_fair(&writes);
        }
    }
}

#[cfg(target_arch = "aarch64")]
fn controllers() -> [Controller; 4] {
    const BASE: usize = 0x2f00_0000;
    let frames = machine::GICR_LENGTH;
    [
        // GICD_CTLR.
        Controller {
            entry: entry(InterruptController, 0, 0, &[]),
            register: 0x800_0000,
            alone: false,
        },
        // GICD_IGROUPR1.
        Controller {
            entry: entry(GPPTDistributor, BASE, machine::GICD_LENGTH, &[]),
            register: BASE + 0x84,
            alone: true,
        },
        // GICR_PROPBASER.
        Controller {
            entry: entry(GPPTRedistributor, BASE, frames, &[1, frames, 0]),
            register: BASE + 0x70,
            alone: true,
        },
        // GITS_BASER0.
        Controller {
            entry: entry(GPPTITS, BASE, machine::ITS_LENGTH, &[machine::ITS]),
            register: BASE + 0x100,
            alone: true,
        },
    ]
}

#[cfg(target_arch = "riscv64")]
fn controllers() -> [Controller; 1] {
    const LENGTH: usize = 0x40_0000;
    let base = crate::host::registers(LENGTH);
    // The completion of source 7 by context 0, which the guard forwards one at a time.
    [Controller {
        entry: entry(PPPTGlobal, base, LENGTH, &[1]),
        register: base + 0x20_0004,
        alone: true,
    }]
}

#[test]
fn on_each_controller_all_wait_and_none_starves() {
    let _machine = machine::exclusive();
    for controller in controllers() {
        let register = controller.register.into();
        let entries = config(std::slice::from_ref(&controller.entry));
        let builder = SharedVmDevices::builder().config(entries.clone());
        let devices = builder.trust_guest_its(true).build().unwrap();
        controller.crowd(|| devices.handle_mmio_write(register, Dword, 7));

        let builder = AxVmDevices::builder().config(entries);
        let devices = builder.trust_guest_its(true).build().unwrap();
        let shared = &Shared(&devices);
        controller.crowd(|| shared.get().handle_mmio_write(register, Dword, 7));
    }
}
