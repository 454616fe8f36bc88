//! The device registry of an SMP hypervisor: a guest access to an emulated device traps, and the registry
//! finds the device that owns the address and calls it.
//!
//! The API is that of crate `axdevice` 0.4.10, which this crate replaces. Tables are immutable snapshots:
//! a dispatch takes no lock, and a change copies the tables, edits the copy and publishes it.
//!
//! # Registries
//!
//! - [`SharedVmDevices`] holds devices that are `Send + Sync`, and is itself `Send + Sync`. [`Serialized`] wraps a
//!   device that is not `Sync`.
//! - [`AxVmDevices`] holds devices without thread bounds, as 0.4.10 does.
//!
//! Both are aliases of [`VmDevices`]. [`VmDevicesBuilder`] builds the devices of an [`AxVmDeviceConfig`].
//!
//! # Accesses
//!
//! - [`handle_mmio_read`](VmDevices::handle_mmio_read) and the similar methods dispatch one access;
//!   [`read_bytes`](VmDevices::read_bytes) takes the buffer of a VM exit; [`read_repeated`](VmDevices::read_repeated)
//!   is for string I/O.
//! - A [`Dispatcher`] is a vCPU's own handle. It is faster: while its tables are current, a dispatch writes no shared
//!   memory. It counts accesses and misses in a [`Profile`].
//! - [`Unmapped`] is the policy for accesses that no device owns.
//! - [`guards`] lists, for each register of the built-in interrupt controllers, the accesses that reach the device.
//!   [`guarded`] puts these guards in front of the embedder's devices.
//!
//! # Changes
//!
//! - [`add_mmio_dev`](VmDevices::add_mmio_dev) and the similar methods return a [`DeviceId`], or an [`AddError`] with
//!   the device and the [`Refusal`].
//! - [`remove`](VmDevices::remove) unlinks a device immediately; the returned [`Removed`] reports when no
//!   vCPU is inside it any more.
//! - [`move_to`](VmDevices::move_to), [`map`](VmDevices::map) and [`unmap`](VmDevices::unmap) change its
//!   ranges; [`update`](VmDevices::update) makes a [`Batch`] of changes at one instant.
//! - A [`Listener`] gets each change before and after it is published, and may veto it.
//!
//! # Targets and features
//!
//! The crate is `no_std` with `alloc`. On hosted targets snapshots are published through arc-swap, on bare
//! metal through a cell without thread-locals ([`set_context_id`] identifies the running context there).
//!
//! - `float-unmapped`: [`Unmapped::Float`] is the default policy.
//! - `trust-guest-its`: guests may have an ITS.
//! - `slot-cell`: the cell for bare metal on hosted targets too.
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//!
//! use axdevice::{
//!     AccessWidth, AxResult, BaseDeviceOps, EmulatedDeviceType, Port, PortRange, SharedVmDevices,
//!     Unmapped,
//! };
//!
//! /// A register that reads as 7.
//! struct Seven;
//!
//! impl BaseDeviceOps<PortRange> for Seven {
//!     fn emu_type(&self) -> EmulatedDeviceType {
//!         EmulatedDeviceType::Dummy
//!     }
//!     fn address_range(&self) -> PortRange {
//!         PortRange::new(Port(0x70), Port(0x70))
//!     }
//!     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
//!         Ok(7)
//!     }
//!     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
//!         Ok(())
//!     }
//! }
//!
//! let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
//! let mut vcpu = devices.dispatcher();
//! assert_eq!(vcpu.handle_port_read(Port(0x70), AccessWidth::Byte)?, 0xff); // an open bus
//! let id = devices.add_port_dev(Arc::new(Seven))?;
//! assert_eq!(vcpu.handle_port_read(Port(0x70), AccessWidth::Byte)?, 7);
//! drop(devices.remove(id)?);
//! assert_eq!(vcpu.handle_port_read(Port(0x70), AccessWidth::Byte)?, 0xff);
//! # Ok::<(), axdevice::AxError>(())
//! ```
#![cfg_attr(not(any(test, loom)), no_std)]
// Tests are exempt: their threads are std's.
#![cfg_attr(not(test), warn(clippy::disallowed_types, clippy::disallowed_methods))]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

mod access;
mod arch;
#[cfg_attr(
    any(not(test), loom),
    expect(dead_code, reason = "each architecture builds its own devices only")
)]
mod arguments;
mod batch;
mod builder;
mod bus;
mod bytes;
mod change;
mod config;
mod context;
mod dispatcher;
mod fair_lock;
pub mod guarded;
pub mod guards;
mod iter;
mod iter_mut;
mod ivc;
mod lent;
mod limited_log;
#[cfg(test)]
#[path = "../loom-tests/mod.rs"]
mod loom_tests;
mod mount;
#[cfg(object_code)]
mod object_code;
pub mod orderings;
mod profile;
mod refusal;
mod registry;
mod removed;
mod serialized;
mod snapshot;
mod sync;
#[cfg(all(test, not(loom)))]
mod testing;
mod unmapped;

// The types in the API of this crate: its users need no other dependency for them.
pub use ax_errno::{AxError, AxResult};
pub use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{
        AccessWidth, DeviceAddr, DeviceAddrRange, Port, PortRange, SysRegAddr, SysRegAddrRange,
    },
};
pub use axdevice_base::BaseDeviceOps;
pub use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
pub use busmap::{
    Accesses, BusCounters, BusId, DeviceId, DeviceProfile, Difference, Listener, Mapping, Missed,
    MissedAddress, Profile, Span, Veto,
};

pub use crate::{
    batch::Batch,
    builder::VmDevicesBuilder,
    bus::{BusAddr, BusRange, Device, DeviceBound, ThreadSafe, Unbound},
    config::{AxVmDeviceConfig, ConfigError, ConfigFault},
    context::set_context_id,
    dispatcher::{Dispatcher, DispatcherCounters},
    profile::{ProfileRow, ProfileTable},
    refusal::{AddError, Refusal},
    registry::{AxVmDevices, SharedVmDevices, VmDevices},
    removed::Removed,
    serialized::Serialized,
    snapshot::Snapshot,
    unmapped::Unmapped,
};

/// The examples of README.md and docs/, as doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/vmm.md")]
    mod vmm {}
}
