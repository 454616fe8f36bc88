//! The GICv2 distributor, which crate `arm_vgic` emulates itself: only GICD_TYPER and GICD_IIDR are
//! the host's. Registers: Arm GIC architecture specification, GICv2, IHI 0048, "Distributor
//! register map".

use axaddrspace::device::AccessWidth::{Byte, Dword, Word};
use axdevice::AxVmDevices;
use axvmconfig::EmulatedDeviceType::InterruptController;
use support::entry;

use crate::{
    common::{config, on_two_vcpus, read, write},
    host::machine,
};

/// The device's address, regardless of the entry.
const GICD: usize = 0x800_0000;
const CTLR: usize = GICD;
const TYPER: usize = GICD + 0x4;
const IIDR: usize = GICD + 0x8;
const ISENABLER: usize = GICD + 0x100;

fn config_entry() -> axdevice::AxVmDeviceConfig {
    config(&[entry(InterruptController, 0, 0, &[])])
}

#[test]
fn identification_registers_are_the_hosts_at_every_width() {
    let devices = AxVmDevices::try_new(config_entry()).unwrap();
    let registers = [
        (TYPER, machine::GICD_TYPER as usize),
        (IIDR, machine::GICD_IIDR as usize),
    ];
    for (register, value) in registers {
        assert_eq!(read(&devices, register, Dword), value);
        assert_eq!(read(&devices, register, Word), value & 0xffff);
        assert_eq!(read(&devices, register, Byte), value & 0xff);
        // Read only.
        write(&devices, register, Dword, 0);
        assert_eq!(read(&devices, register, Dword), value);
    }
}

#[test]
fn control_keeps_a_value_written_at_every_width() {
    let devices = AxVmDevices::try_new(config_entry()).unwrap();
    for (width, value) in [(Dword, 1), (Word, 0), (Byte, 1)] {
        write(&devices, CTLR, width, value);
        assert_eq!(read(&devices, CTLR, width), value);
    }
}

#[test]
fn interrupts_are_enabled_by_bits() {
    let devices = AxVmDevices::try_new(config_entry()).unwrap();
    // GICD_ISENABLER3: interrupts 96 to 127. A bit of zero changes nothing.
    let register = ISENABLER + 4 * 3;
    write(&devices, register, Dword, 0x8000_0100);
    write(&devices, register, Dword, 0x1);
    assert_eq!(read(&devices, register, Dword), 0x8000_0101);
    assert_eq!(read(&devices, register, Word), 0x101);
    assert_eq!(read(&devices, register, Byte), 0x1);
    assert_eq!(read(&devices, register - 4, Dword), 0);
    assert_eq!(read(&devices, register + 4, Dword), 0);
}

#[test]
fn two_vcpus_enable_interrupts_and_none_is_lost() {
    let devices = AxVmDevices::try_new(config_entry()).unwrap();
    on_two_vcpus(&devices, |devices, vcpu| {
        for bit in (vcpu..32).step_by(2) {
            write(devices, ISENABLER + 4, Dword, 1 << bit);
            assert_ne!(read(devices, ISENABLER + 4, Dword) & 1 << bit, 0);
        }
    });
    assert_eq!(read(&devices, ISENABLER + 4, Dword), 0xffff_ffff);
}
