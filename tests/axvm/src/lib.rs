//! A hypervisor's use of the devices of a VM of axvm, which are this project's registry. With the
//! published `axdevice` 0.4.10 this does not compile: it lacks the types and the methods.
#![no_std]

extern crate alloc;

use alloc::{string::String, sync::Arc};
use core::fmt::Write;

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice::{AddError, AxVmDevices, DeviceId};
use axdevice_base::{BaseDeviceOps, BaseMmioDeviceOps};
use axvm::AxVM;

/// axvm's devices. There is only one type of that name.
pub fn devices(vm: &AxVM) -> &axdevice::VmDevices<axdevice::Unbound> {
    vm.get_devices()
}

/// Adds a device to a VM that may be running.
pub fn hot_add(
    vm: &AxVM,
    device: Arc<dyn BaseMmioDeviceOps>,
) -> Result<DeviceId, AddError<dyn BaseDeviceOps<GuestPhysAddrRange>>> {
    devices(vm).add_mmio_dev(device)
}

/// Prints the owners of addresses.
pub fn memory_map(vm: &AxVM) -> String {
    let mut map = String::new();
    write!(map, "{}", devices(vm).snapshot()).expect("a String accepts everything");
    map
}

/// Raises an interrupt as Axvisor does on riscv64: by a write to the interrupt controller's device.
pub fn raise(vm: &AxVM, plic: GuestPhysAddr, pending: GuestPhysAddr, bit: usize) {
    let plic = vm.get_devices().find_mmio_dev(plic).expect("a PLIC");
    let _ = plic.handle_write(pending, AccessWidth::Dword, bit);
}

/// Counts devices as Axvisor's shell does.
pub fn count(devices: &AxVmDevices) -> usize {
    devices.iter_mmio_dev().count() + devices.iter_sys_reg_dev().count()
}
