//! [`Removed`]: a device on its way out.

use core::fmt;

use busmap::DeviceId;

use crate::{
    bus::{Device, DeviceBound, Entry},
    sync::Arc,
};

/// A device that is no longer registered, and that vCPUs may still be inside of.
///
/// The tables that list the device count. The current one does not list it; each older one is held
/// by a vCPU that is dispatching by it, or by a [`Dispatcher`](crate::Dispatcher), which keeps it
/// until its next dispatch, `refresh` or `park`. So when no table lists the device any more, it is
/// *quiescent*: no vCPU is inside it by way of `handle_*` or of a `Dispatcher`, and none will enter.
/// All that they did there happens before.
///
/// A vCPU in guest mode holds its `Dispatcher`'s tables for as long as it runs there. To end the
/// wait, kick every vCPU out of its guest, and let each refresh or park.
///
/// Devices that [`find_*`](crate::VmDevices::find_mmio_dev) and
/// [`snapshot`](crate::VmDevices::snapshot) have returned are the caller's own, and do not count; nor do
/// the devices that the registry keeps because [`iter_*`](crate::VmDevices::iter_mmio_dev) has lent
/// them. So after the wait the caller has the device alone only if none of these has given it away.
///
/// This may be dropped at any time: the device is then dropped with the last table that lists it, by
/// a thread that changes the registry, or with the registry. A device must not own what its own
/// removal gave.
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

    /// Whether every vCPU has left the device, for good.
    ///
    /// Sweeps the registry's older tables, and drops those that no vCPU holds.
    pub fn is_quiescent(&self) -> bool {
        self.0.is_quiescent()
    }

    /// How many times older tables list it; none when the device is quiescent. Sweeps, as
    /// [`is_quiescent`](Self::is_quiescent).
    ///
    /// Several tables may share one listing, and several vCPUs may hold the same table.
    pub fn holders(&self) -> usize {
        self.0.holders()
    }

    /// Waits until the device is quiescent, and gives the device: looks once, and up to `spins` times
    /// more. Between two looks it backs off, and yields to the scheduler where there is one, so that
    /// each may take from nanoseconds to a scheduler's time slice.
    ///
    /// # Errors
    ///
    /// If vCPUs still are, or may come, inside the device, `self` is given back, which says so as an
    /// error. From inside the device's own handler this always ends so.
    pub fn wait(self, spins: usize) -> Result<Device<B>, Self> {
        self.0.wait(spins).map(device).map_err(Self)
    }

    /// Waits until the device is quiescent, for at least `timeout`, and gives the device. Spins at
    /// first, then sleeps between two looks, a millisecond at most.
    ///
    /// Not on bare metal, where there is no clock.
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
    /// Says which device is still in use, and by how much.
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
