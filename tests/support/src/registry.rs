//! Registries without devices, and the devices that a registry lists.

use std::sync::Arc;

use axdevice::{
    AxVmDevices, DeviceBound, DeviceId, Removed, SharedVmDevices, Snapshot, Span, Unmapped,
};

use crate::bus::Bus;

/// A registry where a miss is an error, regardless of the features.
pub fn registry() -> AxVmDevices {
    AxVmDevices::default().with_unmapped(Unmapped::Error)
}

/// The same, for threads.
pub fn shared_registry() -> SharedVmDevices {
    SharedVmDevices::default().with_unmapped(Unmapped::Error)
}

/// The devices of a snapshot on one bus: id and range, by address.
pub fn owners<R: Bus, B: DeviceBound>(snapshot: &Snapshot<B>) -> Vec<(DeviceId, R)> {
    let listed = R::listed(snapshot).into_iter();
    listed.map(|(id, range, _)| (id, range)).collect()
}

/// The removed device, which must be quiescent.
///
/// # Panics
///
/// If a vCPU is inside the device, or if the device is on another bus.
pub fn device_of<R: Bus, B: DeviceBound>(removed: Removed<B>) -> Arc<B::Dev<R>> {
    let device = removed.wait(0).expect("no vCPU is left in the device");
    R::unwrapped(device).expect("it is on its own bus")
}

/// The addresses `first ..= last`.
///
/// # Panics
///
/// If `last` is less than `first`.
pub fn span(first: usize, last: usize) -> Span {
    Span::new(first as u64, last as u64).expect("the last address is not below the first")
}
