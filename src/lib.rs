#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(test, loom)), no_std)]
// Not tests, whose threads are std's.
#![cfg_attr(not(test), warn(clippy::disallowed_types, clippy::disallowed_methods))]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

#[doc(hidden)]
pub mod arch;
#[cfg_attr(
    any(not(test), loom),
    expect(dead_code, reason = "each architecture builds its own devices only")
)]
mod arguments;
mod builder;
mod bus;
mod cache;
mod config;
mod context;
mod device;
mod dispatch;
mod dispatcher;
mod error;
mod fair_lock;
pub mod guards;
mod iterate;
mod ivc;
mod ledger;
mod limited_log;
#[cfg(test)]
#[path = "../loom-tests/mod.rs"]
mod loom_tests;
mod loose;
pub mod orderings;
mod owners;
#[cfg(probe)]
mod probe;
mod publish;
mod registry;
mod removed;
mod serialized;
mod snapshot;
mod span;
mod stack;
mod sync;
mod table;
mod tables;
#[cfg(all(test, not(loom)))]
mod testing;
mod unmapped;
mod update;

pub use crate::{
    builder::VmDevicesBuilder,
    bus::{BusAddr, BusRange},
    config::{AxVmDeviceConfig, ConfigError, ConfigFault},
    context::set_context_id,
    device::{Device, DeviceBound, DeviceId, ThreadSafe, Unbound},
    dispatcher::{BusCounters, Dispatcher, DispatcherCounters},
    error::{AddError, Refusal},
    registry::{AxVmDevices, SharedVmDevices, VmDevices},
    removed::Removed,
    serialized::Serialized,
    snapshot::Snapshot,
    span::Span,
    unmapped::Unmapped,
    update::Batch,
};
