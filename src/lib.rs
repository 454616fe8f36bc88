#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(test, loom)), no_std)]
// Not tests, whose threads are std's.
#![cfg_attr(not(test), warn(clippy::disallowed_types, clippy::disallowed_methods))]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

mod access;
#[doc(hidden)]
pub mod arch;
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

// What users of this crate name, so that they depend on nothing else.
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
