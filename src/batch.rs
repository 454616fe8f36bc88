//! [`Batch`]: changes that are made together, or not at all.

use alloc::vec::Vec;
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use busmap::DeviceId;

use crate::{
    bus::{BusRange, DeviceBound},
    mount::Mount,
    refusal::Refusal,
    sync::Arc,
};

/// Changes that are recorded now and made together, or not at all.
///
/// Recording a device asks for its range and gives it its id. Whether the devices fit, together and
/// with those that are there, is seen when the batch is made, and judged by the result.
pub struct Batch<'r, B: DeviceBound> {
    inner: busmap::Batch<'r, B::Handlers>,
    name: Option<Arc<str>>,
    /// Why the last of what could not be recorded was refused.
    refusal: Option<Refusal>,
}

impl<'r, B: DeviceBound> Batch<'r, B> {
    /// A batch, whose devices will bear `name` in memory maps.
    pub(crate) const fn new(inner: busmap::Batch<'r, B::Handlers>, name: Option<Arc<str>>) -> Self {
        Self {
            inner,
            name,
            refusal: None,
        }
    }

    /// Why the last of what could not be recorded was refused.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Keeps in mind why something could not be recorded.
    fn noting<T>(
        &mut self,
        record: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        record(self).inspect_err(|&refusal| self.refusal = Some(refusal))
    }

    /// Makes all that was recorded, or none of it. Gives what was removed.
    pub(crate) fn publish(self) -> Result<Vec<busmap::Removed<B::Handlers>>, Refusal> {
        Ok(self.inner.publish()?)
    }

    /// Records a device.
    pub(crate) fn mount<R: BusRange>(
        &mut self,
        mount: Mount<B::Dev<R>>,
    ) -> Result<DeviceId, Refusal> {
        self.noting(|batch| {
            let span = mount.device.address_range().span()?;
            let device = mount.registered::<R, B>(batch.name.clone());
            Ok(batch.inner.add_at::<R::Bus>(device, span)?)
        })
    }
}

/// Recording devices to be added.
///
/// # Errors
///
/// For a range that is empty or backwards, or for want of memory; the device is dropped then, but for the
/// caller's own counts. The batch can go on without it.
///
/// # Devices that are not `Sync`
///
/// They go into a [`SharedVmDevices`](crate::SharedVmDevices) as [`Serialized`](crate::Serialized) ones:
/// see [`VmDevices::add_mmio_dev`](crate::VmDevices::add_mmio_dev).
impl<B: DeviceBound> Batch<'_, B> {
    /// Records a device in guest physical memory.
    pub fn add_mmio_dev(
        &mut self,
        dev: Arc<B::Dev<GuestPhysAddrRange>>,
    ) -> Result<DeviceId, Refusal> {
        self.mount::<GuestPhysAddrRange>(Mount::bare(dev))
    }

    /// Records a system register device.
    pub fn add_sys_reg_dev(
        &mut self,
        dev: Arc<B::Dev<SysRegAddrRange>>,
    ) -> Result<DeviceId, Refusal> {
        self.mount::<SysRegAddrRange>(Mount::bare(dev))
    }

    /// Records a port I/O device.
    pub fn add_port_dev(&mut self, dev: Arc<B::Dev<PortRange>>) -> Result<DeviceId, Refusal> {
        self.mount::<PortRange>(Mount::bare(dev))
    }
}

/// Recording other changes, of devices that are registered or were recorded before.
///
/// # Errors
///
/// Whether there is such a device, and whether it fits, is seen when the batch is made. These fail
/// for a range that is empty or backwards, or for want of memory.
impl<B: DeviceBound> Batch<'_, B> {
    /// Records that a device is removed: see [`VmDevices::remove`](crate::VmDevices::remove).
    pub fn remove(&mut self, id: DeviceId) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.remove(id)?))
    }

    /// Records that a device gets another range in place of all that it has: see
    /// [`VmDevices::move_to`](crate::VmDevices::move_to).
    pub fn move_to<R: BusRange>(&mut self, id: DeviceId, range: R) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.remap::<R::Bus>(id, range.span()?)?))
    }

    /// Records that a device gets one more range: see [`VmDevices::map`](crate::VmDevices::map).
    pub fn map<R: BusRange>(&mut self, id: DeviceId, range: R) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.map::<R::Bus>(id, range.span()?)?))
    }

    /// Records that a device loses a range: see [`VmDevices::unmap`](crate::VmDevices::unmap). It may
    /// be one that was recorded before.
    pub fn unmap<R: BusRange>(&mut self, id: DeviceId, range: R) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.unmap::<R::Bus>(id, range.span()?)?))
    }
}

impl<B: DeviceBound> fmt::Debug for Batch<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("name", &self.name)
            .field("changes", &self.inner)
            .finish()
    }
}
