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
/// Recording a device reads its range and assigns its id. Conflicts between recorded devices, or with registered ones,
/// are detected when the batch is made; only the final result counts.
pub struct Batch<'r, B: DeviceBound> {
    inner: busmap::Batch<'r, B::Handlers>,
    name: Option<Arc<str>>,
    /// The refusal of the last change that could not be recorded.
    refusal: Option<Refusal>,
}

impl<'r, B: DeviceBound> Batch<'r, B> {
    /// Returns a batch. Memory maps show its devices with `name`.
    pub(crate) const fn new(inner: busmap::Batch<'r, B::Handlers>, name: Option<Arc<str>>) -> Self {
        Self {
            inner,
            name,
            refusal: None,
        }
    }

    /// The refusal of the last change that could not be recorded.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Stores the refusal of a change that could not be recorded.
    fn noting<T>(
        &mut self,
        record: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        record(self).inspect_err(|&refusal| self.refusal = Some(refusal))
    }

    /// Makes all recorded changes, or none. Returns the removed devices.
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
/// The range is empty or backwards, or there is no memory. The batch then drops its reference to the device, and
/// remains usable.
///
/// # Devices that are not `Sync`
///
/// For a [`SharedVmDevices`](crate::SharedVmDevices), wrap them in [`Serialized`](crate::Serialized): see
/// [`VmDevices::add_mmio_dev`](crate::VmDevices::add_mmio_dev).
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
/// The range is empty or backwards, or there is no memory. An unknown device or an overlap is detected only when the
/// batch is made.
impl<B: DeviceBound> Batch<'_, B> {
    /// Records that a device is removed: see [`VmDevices::remove`](crate::VmDevices::remove).
    pub fn remove(&mut self, id: DeviceId) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.remove(id)?))
    }

    /// Records that `range` replaces all ranges of a device on its bus: see
    /// [`VmDevices::move_to`](crate::VmDevices::move_to).
    pub fn move_to<R: BusRange>(&mut self, id: DeviceId, range: R) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.remap::<R::Bus>(id, range.span()?)?))
    }

    /// Records that a device gets one more range: see [`VmDevices::map`](crate::VmDevices::map).
    pub fn map<R: BusRange>(&mut self, id: DeviceId, range: R) -> Result<(), Refusal> {
        self.noting(|batch| Ok(batch.inner.map::<R::Bus>(id, range.span()?)?))
    }

    /// Records that a device loses a range: see [`VmDevices::unmap`](crate::VmDevices::unmap). The batch may have
    /// recorded this range before.
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
