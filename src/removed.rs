//! [`Removed`]: a removed device, which may still have vCPUs inside.

use core::fmt;

use busmap::DeviceId;

use crate::{
    bus::{Device, DeviceBound, Entry},
    sync::Arc,
};

/// A device that is no longer registered. vCPUs may still be inside it.
///
/// The current tables do not list the device, but older ones may. Older tables are held by vCPUs that are dispatching,
/// and by [`Dispatcher`](crate::Dispatcher)s, each until its next dispatch, `refresh` or `park`. When no table lists
/// the device any more, the device is *quiescent*: no vCPU is inside it through `handle_*` or a `Dispatcher`, and none
/// will enter. All accesses of vCPUs to the device happen before that.
///
/// A vCPU in guest mode holds its `Dispatcher`'s tables for as long as it runs there. To end the
/// wait, kick every vCPU out of its guest, and let each refresh or park.
///
/// References that [`find_*`](crate::VmDevices::find_mmio_dev) and [`snapshot`](crate::VmDevices::snapshot) have
/// returned do not count. References that the registry keeps because [`iter_*`](crate::VmDevices::iter_mmio_dev) has
/// lent the device do not count either. So after the wait the caller is the only owner, unless such references exist.
///
/// A `Removed` may be dropped at any time. The device is then dropped with the last table that lists it, by a thread
/// that changes the registry, or with the registry. A device must not own its own `Removed`.
#[must_use = "a device that was removed may still be in use"]
pub struct Removed<B: DeviceBound>(busmap::Removed<B::Handlers>);

impl<B: DeviceBound> Removed<B> {
    pub(crate) const fn new(removed: busmap::Removed<B::Handlers>) -> Self {
        Self(removed)
    }

    /// The id that the device had.
    pub fn id(&self) -> DeviceId {
        self.0.id()
    }

    /// Whether the device is quiescent: every vCPU has left it, and none will enter.
    ///
    /// Sweeps the registry's older tables, and drops those that no vCPU holds.
    pub fn is_quiescent(&self) -> bool {
        self.0.is_quiescent()
    }

    /// The number of listings of the device in older tables; 0 if it is quiescent. Sweeps as
    /// [`is_quiescent`](Self::is_quiescent) does.
    ///
    /// Several tables may share one listing, and several vCPUs may hold the same table.
    pub fn holders(&self) -> usize {
        self.0.holders()
    }

    /// Waits until the device is quiescent, and returns it. Checks once, and up to `spins` times more. Between two
    /// checks it backs off, and yields to the scheduler if there is one. Each check may therefore take from nanoseconds
    /// to a scheduler's time slice.
    ///
    /// # Errors
    ///
    /// Returns `self` if vCPUs are still inside the device, or may still enter it. From inside the device's own handler
    /// this always fails.
    pub fn wait(self, spins: usize) -> Result<Device<B>, Self> {
        self.0.wait(spins).map(device).map_err(Self)
    }

    /// Waits until the device is quiescent, for at least `timeout`, and returns it. Spins at first, then sleeps between
    /// two checks, for a millisecond at most.
    ///
    /// Not available on bare metal, which has no clock.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    #[cfg(not(target_os = "none"))]
    pub fn wait_timeout(self, timeout: core::time::Duration) -> Result<Device<B>, Self> {
        self.0.wait_timeout(timeout).map(device).map_err(Self)
    }
}

/// The device of a registration.
fn device<B: DeviceBound>(device: busmap::Device<B::Handlers>) -> Device<B> {
    let entry: Arc<Entry<B>> = device.into_tag();
    match Arc::try_unwrap(entry) {
        Ok(entry) => entry.device,
        Err(entry) => entry.device.clone(),
    }
}

impl<B: DeviceBound> fmt::Display for Removed<B> {
    /// Writes the device that is still in use, and its number of holders.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error of a wait that failed.
impl<B: DeviceBound> core::error::Error for Removed<B> {}

impl<B: DeviceBound> fmt::Debug for Removed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Removed").field(&self.0).finish()
    }
}
