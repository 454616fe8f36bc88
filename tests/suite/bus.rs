//! The types that may cross threads and those that are errors, checked at compile time.

use std::{
    cell::Cell,
    error::Error,
    fmt::{Debug, Display},
    rc::Rc,
    sync::Arc,
};

use ax_errno::AxError;
use axaddrspace::{GuestPhysAddrRange, device::PortRange};
use axdevice::{
    AddError, AxVmDeviceConfig, AxVmDevices, Batch, ConfigError, Device, DeviceBound, DeviceId,
    Refusal, Removed, Serialized, SharedVmDevices, Snapshot, ThreadSafe, Unbound, Unmapped,
};
use axdevice_base::{BaseDeviceOps, BaseMmioDeviceOps};
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_type_eq_all};

assert_impl_all!(SharedVmDevices: Send, Sync, Default, Debug);
assert_not_impl_any!(AxVmDevices: Send, Sync);
assert_impl_all!(AxVmDevices: Default, Debug);

assert_impl_all!(Snapshot<ThreadSafe>: Send, Sync, Display, Debug);
assert_not_impl_any!(Snapshot<Unbound>: Send, Sync);

assert_impl_all!(Device<ThreadSafe>: Send, Sync, Clone, Debug);
assert_not_impl_any!(Device<Unbound>: Send, Sync);

assert_impl_all!(Batch<'static, ThreadSafe>: Send);
assert_not_impl_any!(Batch<'static, Unbound>: Send, Sync);

// A thread may wait for a device that another thread removed.
assert_impl_all!(Removed<ThreadSafe>: Send, Sync, Debug, Error);
assert_not_impl_any!(Removed<Unbound>: Send, Sync);
assert_impl_all!(Removed<Unbound>: Debug, Error);

// A lock makes a `Send` type `Sync`, but no other type.
assert_impl_all!(Serialized<Cell<u8>>: Send, Sync);
assert_not_impl_any!(Serialized<Rc<u8>>: Send, Sync);

assert_impl_all!(AddError<dyn BaseDeviceOps<PortRange> + Send + Sync>: Send, Sync, Error);
assert_not_impl_any!(AddError<dyn BaseDeviceOps<PortRange>>: Send, Sync);
assert_impl_all!(Refusal: Send, Sync, Copy, Eq, Error, Into<AxError>);
assert_impl_all!(ConfigError: Send, Sync, Clone, Eq, Error, Into<AxError>);

assert_impl_all!(DeviceId: Send, Sync, Copy, Ord, std::hash::Hash, Display);
assert_impl_all!(Unmapped: Send, Sync, Copy, Eq, Default);
assert_impl_all!(AxVmDeviceConfig: Send, Sync, Clone, Default);

// Exactly the device objects of 0.4.10: its embedders pass and receive them.
assert_type_eq_all!(
    Arc<<Unbound as DeviceBound>::Dev<GuestPhysAddrRange>>,
    Arc<dyn BaseMmioDeviceOps>
);
