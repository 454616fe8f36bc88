//! Races of two vCPUs in the GICv3's devices, which they enter at the same time, bare and behind the registry.
//!
//! The devices keep state that they change through shared references without any lock. Under Miri each test of `bare`
//! ends with "Data race detected", and each of `behind_the_registry` passes: `.ci/miri-devices.sh` checks both. Nothing
//! else runs these tests, because the bare ones are undefined behaviour.
//!
//! The tests cover the devices' own state. Behind the registry two vCPUs may also access one register of the host at
//! the same time. Hardware orders such accesses, but for Miri the register is memory, and it reports a race. So no two
//! vCPUs of these tests write the same such register.
#![cfg(target_arch = "aarch64")]

use std::{sync::Barrier, thread};

use arm_vgic::v3::vgicd::VGicD;
use axaddrspace::device::AccessWidth::{self, Byte, Qword};
use axdevice::{AxVmDeviceConfig, AxVmDevices};
use axdevice_base::map_device_of_type;
use axvmconfig::EmulatedDeviceType::{GPPTDistributor, GPPTITS, GPPTRedistributor};
use support::{
    entry,
    host::{machine, registers},
};

const GICD: usize = 0x2f00_0000;
const GICR: usize = 0x2f10_0000;
const ITS: usize = 0x2f20_0000;

// Registers: Arm GIC architecture specification, GICv3 and GICv4, IHI 0069.
const GICD_IPRIORITYR: usize = GICD + 0x400;
const GICR_PROPBASER: usize = GICR + 0x70;
const GITS_CTLR: usize = ITS;
const GITS_CBASER: usize = ITS + 0x80;
const GITS_CWRITER: usize = ITS + 0x88;
const GITS_BASER0: usize = ITS + 0x100;
const GITS_BASER1: usize = ITS + 0x108;

/// An SPI.
const INTERRUPT: usize = 40;

/// The state that the vCPUs share.
struct Guest {
    devices: AxVmDevices,
    /// Whether the vCPUs call the device that they have looked up, instead of dispatching through the registry.
    bare: bool,
}

// SAFETY: behind the registry, accesses to the same state of a device that is not `Sync` exclude each other, and no
// thread calls the devices directly once there are vCPUs. Bare, this claim is false: the tests show it.
unsafe impl Sync for Guest {}

impl Guest {
    fn new(bare: bool) -> Self {
        let entries = vec![
            entry(GPPTDistributor, GICD, machine::GICD_LENGTH, &[]),
            entry(GPPTRedistributor, GICR, machine::GICR_LENGTH, &[1, 0, 0]),
            entry(GPPTITS, ITS, machine::ITS_LENGTH, &[machine::ITS]),
        ];
        let builder = AxVmDevices::builder().config(AxVmDeviceConfig::new(entries));
        let devices = builder.trust_guest_its(true).build().unwrap();
        Self { devices, bare }
    }

    fn read(&self, register: usize, width: AccessWidth) {
        let register = register.into();
        let read = if self.bare {
            let device = self.devices.find_mmio_dev(register).unwrap();
            device.handle_read(register, width)
        } else {
            self.devices.handle_mmio_read(register, width)
        };
        read.unwrap();
    }

    fn write(&self, register: usize, width: AccessWidth, value: usize) {
        let register = register.into();
        let written = if self.bare {
            let device = self.devices.find_mmio_dev(register).unwrap();
            device.handle_write(register, width, value)
        } else {
            self.devices.handle_mmio_write(register, width, value)
        };
        written.unwrap();
    }

    /// Assigns the interrupt to the guest as axvm does: in the bare device.
    fn assign(&self) {
        let assigned = self.devices.iter_mmio_dev().find_map(|device| {
            map_device_of_type(device, |gicd: &VGicD| {
                gicd.assign_irq(INTERRUPT as u32, 0, (0, 0, 0, 0));
            })
        });
        assigned.expect("a distributor");
    }

    /// Runs `work` on two vCPUs at once.
    fn run(&self, work: impl Fn(&Self, usize) + Sync) {
        let (work, start) = (&work, &Barrier::new(2));
        thread::scope(|vcpus| {
            for vcpu in 0..2 {
                vcpus.spawn(move || {
                    start.wait();
                    work(self, vcpu);
                });
            }
        });
    }
}

/// Two vCPUs write one register.
fn write_one(bare: bool, register: usize) {
    Guest::new(bare).run(|guest, vcpu| guest.write(register, Qword, vcpu << 12));
}

/// One vCPU writes the register that the other reads.
fn write_and_read(bare: bool, register: usize) {
    Guest::new(bare).run(|guest, vcpu| match vcpu {
        0 => guest.write(register, Qword, 1 << 12),
        _ => guest.read(register, AccessWidth::Dword),
    });
}

/// Each of two vCPUs writes one half of a register. Bare, the device has no upper half, and both write the same half.
fn write_halves(bare: bool, register: usize) {
    Guest::new(bare).run(|guest, vcpu| {
        let upper = if bare { 0 } else { 4 * vcpu };
        guest.write(register + upper, AccessWidth::Dword, 1);
    });
}

/// Two vCPUs submit the same command to the ITS.
fn submit(bare: bool) {
    let guest = Guest::new(bare);
    guest.write(GITS_CBASER, Qword, 1 << 63 | registers(0x1_0000) | 0xf);
    guest.write(GITS_CTLR, AccessWidth::Dword, 1);
    guest.run(|guest, _| guest.write(GITS_CWRITER, Qword, 0x20));
}

/// A vCPU reads interrupts while they are assigned. Behind the registry they are assigned first, as axvm does, because
/// the assignment is a call of the bare device there too.
fn assign(bare: bool) {
    let guest = Guest::new(bare);
    if !bare {
        guest.assign();
    }
    guest.run(|guest, vcpu| match vcpu {
        0 if guest.bare => guest.assign(),
        _ => guest.read(GICD_IPRIORITYR + INTERRUPT, Byte),
    });
}

/// Makes two tests for each race.
macro_rules! races {
    ($($name:ident: $race:expr;)+) => {
        mod bare {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let race: fn(bool) = $race;
                    race(true);
                }
            )+
        }

        mod behind_the_registry {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let race: fn(bool) = $race;
                    race(false);
                }
            )+
        }
    };
}

races! {
    gicd_assigned_interrupts: assign;
    gicr_propbaser: |bare| write_one(bare, GICR_PROPBASER);
    gicr_propbaser_read: |bare| write_and_read(bare, GICR_PROPBASER);
    gicr_propbaser_halves: |bare| write_halves(bare, GICR_PROPBASER);
    gits_cbaser: |bare| write_one(bare, GITS_CBASER);
    gits_cbaser_read: |bare| write_and_read(bare, GITS_CBASER);
    gits_cwriter: submit;
    gits_device_table: |bare| write_one(bare, GITS_BASER0);
    gits_collection_table: |bare| write_one(bare, GITS_BASER1);
}
