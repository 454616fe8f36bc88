//! The devices of axdevice 0.8 on [`busmap`]: [`Devices`] handles an access as axdevice 0.8.5's `DeviceRuntime` does,
//! and registers and removes devices while vCPUs run.
//!
//! A [`Device`] is registered unchanged, with several resources on several buses. The other parts of a
//! `DeviceRuntime`, such as services, pollers and interrupt controllers, take no part in an access, and stay there.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod context;
mod devices;
mod grants;
mod resources;
mod vcpu;

use alloc::sync::Arc;

use axdevice_base::{Device, DeviceId};
use busmap::Handlers;

pub use crate::{
    devices::{Devices, Entry, Ports},
    grants::Grants,
    vcpu::VcpuDevices,
};

/// The handlers of [`busmap`]: the same object on every bus, with its grants as the tag.
#[derive(Debug)]
pub enum Handled {}

impl Handlers for Handled {
    type Mmio = dyn Device;
    type Port = dyn Device;
    type SysReg = dyn Device;
    type Tag = Arc<Grants>;
}

/// The id that a device has for the VM. [`Devices::register`] refuses ids that need more bits.
fn id_of(id: busmap::DeviceId) -> DeviceId {
    DeviceId::new(id.number() as u32)
}
