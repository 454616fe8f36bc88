//! The device that only this architecture has: a PLIC.

use alloc::{vec, vec::Vec};

use axaddrspace::{GuestPhysAddr, device::AccessWidth};
use axdevice::{SharedVmDevices, ThreadSafe, VmDevicesBuilder};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

use crate::{
    contract::{PLIC, PLIC_LENGTH, plic_context, plic_source},
    options::Sabotage,
};

/// The offset of the PLIC's pending bits.
const PENDING: usize = PLIC as usize + 0x1000;

/// The devices that the crate builds itself. A sabotaged PLIC has one context.
pub(crate) fn config(vcpus: u32, sabotage: Option<Sabotage>) -> Vec<EmulatedDeviceConfig> {
    let contexts = match sabotage {
        Some(Sabotage::Chip) => 1,
        _ => plic_context(vcpus - 1) as usize + 1,
    };
    vec![EmulatedDeviceConfig {
        name: "plic".into(),
        base_gpa: PLIC as usize,
        length: PLIC_LENGTH as usize,
        irq_id: 0,
        emu_type: EmulatedDeviceType::PPPTGlobal,
        cfg_list: vec![contexts],
    }]
}

/// The devices that the crate builds without an entry: none.
pub(crate) fn builder(
    builder: VmDevicesBuilder<'_, ThreadSafe>,
) -> VmDevicesBuilder<'_, ThreadSafe> {
    builder
}

/// Sets up the devices of the configuration, and adds those that it does not contain: does nothing here.
pub(crate) fn set_up(_devices: &SharedVmDevices, _vcpus: u32, _sabotage: Option<Sabotage>) {}

/// Raises an interrupt of `vcpu` as Axvisor does: by a write to the device that it looks up.
///
/// # Panics
///
/// If the device returns an error.
pub(crate) fn interrupt(devices: &SharedVmDevices, vcpu: u32) {
    let source = plic_source(vcpu) as usize;
    let word = GuestPhysAddr::from_usize(PENDING + source / 32 * 4);
    let plic = devices.find_mmio_dev(word).expect("a PLIC");
    let injected = plic.handle_write(word, AccessWidth::Dword, 1 << (source % 32));
    injected.expect("an interrupt");
}
