//! [`Removed`]: a device on its way out.

use core::fmt;

use crossbeam_utils::Backoff;

use crate::{
    bus::OnBus,
    device::{Device, DeviceBound, DeviceId},
    publish::RetireList,
    sync::{Arc, Ordering, Weak, fence, mutant, step_unless},
    table::Entry,
    tables::{EntryOf, Tables},
};

/// A device that is no longer registered, and that vCPUs may still be inside of.
///
/// The tables that list the device count. The current one does not list it; each older one is held
/// by a vCPU that is dispatching by it, or by a [`Dispatcher`](crate::Dispatcher), which keeps it
/// until its next dispatch, `refresh` or `park`. So when no table lists the device any more, it is
/// *quiescent*: no vCPU is inside it by way of `handle_*` or of a `Dispatcher`, and none will enter.
/// All that they did there happens before.
///
/// A vCPU in guest mode holds its `Dispatcher`'s tables for as long as it runs there. To come to an
/// end, kick every vCPU out of its guest, and have each refresh or park.
///
/// What [`find_*`](crate::VmDevices::find_mmio_dev), [`iter_*`](crate::VmDevices::iter_mmio_dev) and
/// [`snapshot`](crate::VmDevices::snapshot) have given is the caller's own, and does not count.
///
/// This may be dropped at any time: the device is then dropped with the last table that lists it, by
/// a thread that changes the registry, or with the registry. A device must not own what its own
/// removal gave.
#[must_use = "a device that was removed may still be in use"]
pub struct Removed<B: DeviceBound> {
    /// The device's entry; the tables that list the device have others with the same registration.
    entry: OnBus<EntryOf<B>>,
    /// Where the older tables are, until a sweep finds nobody holding them.
    retired: Weak<RetireList<Tables<B>>>,
}

impl<B: DeviceBound> Removed<B> {
    pub(crate) fn new(entry: OnBus<EntryOf<B>>, retired: &Arc<RetireList<Tables<B>>>) -> Self {
        Self {
            entry,
            retired: Arc::downgrade(retired),
        }
    }

    /// The id that the device had.
    pub fn id(&self) -> DeviceId {
        match &self.entry {
            OnBus::Mmio(entry) => entry.id(),
            OnBus::SysReg(entry) => entry.id(),
            OnBus::Port(entry) => entry.id(),
        }
    }

    /// Whether every vCPU has left the device, for good.
    ///
    /// Sweeps the registry's older tables, and drops what nobody holds.
    pub fn is_quiescent(&self) -> bool {
        self.holders() == 0 || mutant("removed-early")
    }

    /// How many copies of its entry there are in older tables; none is left when the device is
    /// quiescent. Sweeps, as [`is_quiescent`](Self::is_quiescent).
    ///
    /// Several tables may share one, and several vCPUs may hold the same table.
    pub fn holders(&self) -> usize {
        // Without a registry there is nothing left to sweep.
        if let Some(retired) = self.retired.upgrade() {
            retired.sweep();
        }
        let holders = match &self.entry {
            OnBus::Mmio(entry) => listed(entry),
            OnBus::SysReg(entry) => listed(entry),
            OnBus::Port(entry) => listed(entry),
        };
        // The count was read relaxed. Whoever let go of a table, and with it of the entry, released
        // what was done by it; this acquires it.
        step_unless!("removed-fence", fence(Ordering::Acquire));
        holders
    }

    /// Waits until the device is quiescent, and gives the device: looks once, and up to `spins` times
    /// more. Between two looks it backs off, and yields to the scheduler where there is one.
    ///
    /// # Errors
    ///
    /// If vCPUs still are, or may come, inside the device, `self` is given back. From inside the
    /// device's own handler this always ends so.
    pub fn wait(self, spins: usize) -> Result<Device<B>, Self> {
        let backoff = Backoff::new();
        for _ in 0..spins {
            if self.is_quiescent() {
                break;
            }
            backoff.snooze();
        }
        if !self.is_quiescent() {
            return Err(self);
        }
        Ok(match self.entry {
            OnBus::Mmio(entry) => Device::Mmio(entry.device().clone()),
            OnBus::SysReg(entry) => Device::SysReg(entry.device().clone()),
            OnBus::Port(entry) => Device::Port(entry.device().clone()),
        })
    }
}

/// How many chunks of owners list the device of `entry`, which itself is in none.
fn listed<D: ?Sized>(entry: &Entry<D>) -> usize {
    Arc::strong_count(&entry.registration) - 1
}

impl<B: DeviceBound> fmt::Debug for Removed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removed")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
