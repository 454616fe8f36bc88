//! 0.4.10's methods, and the model's lists, under one name for every bus.

use std::sync::Arc;

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice_0_4_10 as published;
use axdevice_base::BaseDeviceOps;

use super::model::{Model, Owned};
use support::Bus;

/// 0.4.10's methods for one bus.
pub(super) trait Published: Bus {
    fn old_add(on: &mut published::AxVmDevices, device: Arc<dyn BaseDeviceOps<Self>>);

    fn old_find(on: &published::AxVmDevices, at: usize) -> Option<Arc<dyn BaseDeviceOps<Self>>>;

    fn old_all(on: &published::AxVmDevices) -> Vec<&Arc<dyn BaseDeviceOps<Self>>>;

    fn old_all_mut(on: &mut published::AxVmDevices) -> Vec<&mut Arc<dyn BaseDeviceOps<Self>>>;

    fn old_read(on: &published::AxVmDevices, at: usize, width: AccessWidth) -> AxResult<usize>;

    fn old_write(
        on: &published::AxVmDevices,
        at: usize,
        width: AccessWidth,
        value: usize,
    ) -> AxResult;

    /// This bus's part of the model.
    fn owned(model: &Model) -> &Vec<Owned<Self>>;

    fn owned_mut(model: &mut Model) -> &mut Vec<Owned<Self>>;
}

macro_rules! published {
    (
        $range:ty, $field:ident, $add:ident $find:ident $iter:ident $iter_mut:ident $read:ident
        $write:ident
    ) => {
        impl Published for $range {
            fn old_add(on: &mut published::AxVmDevices, device: Arc<dyn BaseDeviceOps<Self>>) {
                on.$add(device);
            }

            fn old_find(
                on: &published::AxVmDevices,
                at: usize,
            ) -> Option<Arc<dyn BaseDeviceOps<Self>>> {
                on.$find(Self::at(at))
            }

            fn old_all(on: &published::AxVmDevices) -> Vec<&Arc<dyn BaseDeviceOps<Self>>> {
                on.$iter().collect()
            }

            fn old_all_mut(
                on: &mut published::AxVmDevices,
            ) -> Vec<&mut Arc<dyn BaseDeviceOps<Self>>> {
                on.$iter_mut().collect()
            }

            fn old_read(
                on: &published::AxVmDevices,
                at: usize,
                width: AccessWidth,
            ) -> AxResult<usize> {
                on.$read(Self::at(at), width)
            }

            fn old_write(
                on: &published::AxVmDevices,
                at: usize,
                width: AccessWidth,
                value: usize,
            ) -> AxResult {
                on.$write(Self::at(at), width, value)
            }

            fn owned(model: &Model) -> &Vec<Owned<Self>> {
                &model.$field
            }

            fn owned_mut(model: &mut Model) -> &mut Vec<Owned<Self>> {
                &mut model.$field
            }
        }
    };
}

published!(
    GuestPhysAddrRange, mmio,
    add_mmio_dev find_mmio_dev iter_mmio_dev iter_mut_mmio_dev handle_mmio_read handle_mmio_write
);
published!(
    SysRegAddrRange, sys_reg,
    add_sys_reg_dev find_sys_reg_dev iter_sys_reg_dev iter_mut_sys_reg_dev handle_sys_reg_read
    handle_sys_reg_write
);
published!(
    PortRange, port,
    add_port_dev find_port_dev iter_port_dev iter_mut_port_dev handle_port_read handle_port_write
);
