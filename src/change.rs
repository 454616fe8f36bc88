//! Changes of the registry: hot-add, hot-remove, moves, and updates of several devices at once.

use alloc::vec::Vec;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use busmap::DeviceId;

use crate::{
    batch::Batch,
    bus::{BusRange, Device, DeviceBound},
    mount::Mount,
    refusal::{AddError, Refusal},
    registry::VmDevices,
    removed::Removed,
    sync::Arc,
};

/// Hot-add.
///
/// Each of these methods reads the device's range once, and publishes new tables that list the device. They take no
/// lock, and may run on many threads at once and inside a device's handler; no device is lost. The new tables cost time
/// and memory in proportion to the number of devices.
///
/// # Errors
///
/// The error contains the device and the [refusal](crate::Refusal): the range is empty or backwards, it overlaps
/// another device or the IVC range, or there is no memory for the tables. The tables are then unchanged. A refusal is
/// also logged at `error!`, for callers written for 0.4.10, whose methods returned nothing.
impl<B: DeviceBound> VmDevices<B> {
    /// Adds a device to guest physical memory.
    ///
    /// # A device that is not `Sync`
    ///
    /// In a [`SharedVmDevices`](crate::SharedVmDevices) a device is `Send + Sync`. For a device that is not `Sync`, the
    /// compiler reports that a part of it "cannot be shared between threads safely":
    ///
    /// ```compile_fail,E0277
    /// use std::{cell::Cell, sync::Arc};
    ///
    /// use axdevice::{
    ///     AccessWidth, AxResult, BaseDeviceOps, EmulatedDeviceType, GuestPhysAddr,
    ///     GuestPhysAddrRange, SharedVmDevices,
    /// };
    ///
    /// struct Counter(Cell<usize>);
    ///
    /// impl BaseDeviceOps<GuestPhysAddrRange> for Counter {
    ///     fn emu_type(&self) -> EmulatedDeviceType {
    ///         EmulatedDeviceType::Dummy
    ///     }
    ///
    ///     fn address_range(&self) -> GuestPhysAddrRange {
    ///         GuestPhysAddrRange::from_start_size(0x1000.into(), 8)
    ///     }
    ///
    ///     fn handle_read(&self, _: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
    ///         Ok(self.0.get())
    ///     }
    ///
    ///     fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
    ///         self.0.set(val);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let devices = SharedVmDevices::default();
    /// devices.add_mmio_dev(Arc::new(Counter(Cell::new(0))))?;
    /// # Ok::<(), axdevice::AxError>(())
    /// ```
    ///
    /// [`Serialized`](crate::Serialized) puts such a device behind a lock:
    ///
    /// ```
    /// use std::{cell::Cell, sync::Arc};
    ///
    /// use axdevice::{
    ///     AccessWidth, AxResult, BaseDeviceOps, EmulatedDeviceType, GuestPhysAddr,
    ///     GuestPhysAddrRange, Serialized, SharedVmDevices,
    /// };
    ///
    /// struct Counter(Cell<usize>);
    ///
    /// impl BaseDeviceOps<GuestPhysAddrRange> for Counter {
    ///     fn emu_type(&self) -> EmulatedDeviceType {
    ///         EmulatedDeviceType::Dummy
    ///     }
    ///
    ///     fn address_range(&self) -> GuestPhysAddrRange {
    ///         GuestPhysAddrRange::from_start_size(0x1000.into(), 8)
    ///     }
    ///
    ///     fn handle_read(&self, _: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
    ///         Ok(self.0.get())
    ///     }
    ///
    ///     fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
    ///         self.0.set(val);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let devices = SharedVmDevices::default();
    /// devices.add_mmio_dev(Arc::new(Serialized::new(Counter(Cell::new(7)))))?;
    /// assert_eq!(devices.handle_mmio_read(0x1000.into(), AccessWidth::Byte), Ok(7));
    /// # Ok::<(), axdevice::AxError>(())
    /// ```
    pub fn add_mmio_dev(
        &self,
        dev: Arc<B::Dev<GuestPhysAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<GuestPhysAddrRange>>> {
        self.add(dev)
    }

    /// Adds a system register device. For a [`SharedVmDevices`](crate::SharedVmDevices), wrap a device that is not
    /// `Sync` in [`Serialized`](crate::Serialized): see [`add_mmio_dev`](Self::add_mmio_dev).
    pub fn add_sys_reg_dev(
        &self,
        dev: Arc<B::Dev<SysRegAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<SysRegAddrRange>>> {
        self.add(dev)
    }

    /// Adds a port I/O device. For a [`SharedVmDevices`](crate::SharedVmDevices), wrap a device that is not `Sync` in
    /// [`Serialized`](crate::Serialized): see [`add_mmio_dev`](Self::add_mmio_dev).
    pub fn add_port_dev(
        &self,
        dev: Arc<B::Dev<PortRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<PortRange>>> {
        self.add(dev)
    }

    fn add<R: BusRange>(&self, device: Arc<B::Dev<R>>) -> Result<DeviceId, AddError<B::Dev<R>>> {
        let added = device.address_range().span().and_then(|span| {
            let mount = Mount::bare(device.clone());
            let registry = self.devices.restored()?;
            Ok(registry.add::<R::Bus>(mount.registered::<R, B>(None), span)?)
        });
        added.map_err(|refusal| {
            self.refusals.error(refusal);
            AddError::new(device, refusal)
        })
    }
}

/// Hot-remove, moves, and batches of changes.
///
/// Like a hot-add, each of these methods publishes new tables once and takes no lock. It may be called on many threads
/// at once and inside a device's handler, even the handler of the changed device. After an error the tables are
/// unchanged, except after [`reindex`](Self::reindex).
///
/// In a registry [with a listener](Self::with_listener) changes wait for each other. A change can then also be refused
/// with [`Refusal::Vetoed`] or, if the listener itself makes it, with [`Refusal::Reentrant`].
impl<B: DeviceBound> VmDevices<B> {
    /// Removes a device: no access that starts after this returns reaches it.
    ///
    /// vCPUs may still be inside the device. The returned [`Removed`] reports when the last has left.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`], or [`Refusal::NoMemory`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use axdevice::{
    ///     AccessWidth, AxResult, BaseDeviceOps, Device, EmulatedDeviceType, Port, PortRange,
    ///     SharedVmDevices, Unmapped,
    /// };
    ///
    /// struct Uart;
    ///
    /// impl BaseDeviceOps<PortRange> for Uart {
    ///     fn emu_type(&self) -> EmulatedDeviceType {
    ///         EmulatedDeviceType::Console
    ///     }
    ///
    ///     fn address_range(&self) -> PortRange {
    ///         PortRange::new(Port(0x3f8), Port(0x3ff))
    ///     }
    ///
    ///     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
    ///         Ok(0)
    ///     }
    ///
    ///     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
    /// let id = devices.add_port_dev(Arc::new(Uart)).unwrap();
    /// let mut vcpu = devices.dispatcher();
    /// vcpu.handle_port_read(Port(0x3f8), AccessWidth::Byte).unwrap();
    ///
    /// let removed = devices.remove(id).unwrap();
    /// assert!(!removed.is_quiescent(), "the vCPU holds the tables that list it");
    /// vcpu.park(); // or `refresh`, or another dispatch
    /// let Ok(Device::Port(uart)) = removed.wait(0) else { unreachable!() };
    /// assert_eq!(Arc::strong_count(&uart), 1, "the only reference");
    /// ```
    pub fn remove(&self, id: DeviceId) -> Result<Removed<B>, Refusal> {
        let removed = self.devices.restored()?.remove(id)?;
        Ok(Removed::new(removed))
    }

    /// Replaces all ranges of a device by `range`, for example after the guest has moved a BAR. No dispatch finds the
    /// device in both the old and the new range, or in neither.
    ///
    /// The device is not called, so its own handler may call this, regardless of the locks that the handler holds. A
    /// device that stores its own range updates it after this succeeds. Until every vCPU has left the old tables, the
    /// device may be called with addresses of either range.
    ///
    /// A caller that stores the range itself and calls this on several threads must order the calls. Otherwise a thread
    /// with an outdated range could publish last. [`reindex`](Self::reindex) reads the range again.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the device is not on the bus of `range`; [`Refusal::NotMapped`] if it has no range at
    /// the moment; a refusal of the range if it is empty or backwards, or overlaps [another device's](Refusal::Overlap)
    /// or [the IVC range](Refusal::Ivc); [`Refusal::NoMemory`].
    pub fn move_to<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        Ok(self.devices.restored()?.remap::<R::Bus>(id, span)?)
    }

    /// Adds a range to a device, for example when the guest enables the decoding of a BAR. The device may have no range
    /// before.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to), except [`Refusal::NotMapped`].
    pub fn map<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        Ok(self.devices.restored()?.map::<R::Bus>(id, span)?)
    }

    /// Removes a range from a device, for example when the guest disables the decoding of a BAR. The device stays
    /// registered and keeps its id.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NotMapped`] if the device does not own exactly this range; a refusal of the
    /// range if it is empty or backwards; [`Refusal::NoMemory`].
    pub fn unmap<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        Ok(self.devices.restored()?.unmap::<R::Bus>(id, span)?)
    }

    /// Reads a device's range and [moves](Self::move_to) the device there, and repeats this until the device returns
    /// the same range again. So after the last of several calls on several threads has returned, the table and the
    /// device agree.
    ///
    /// Unlike `move_to`, this calls the device. A device that owns several ranges owns one afterwards. The call waits
    /// for a [`Serialized`](crate::Serialized) device. In its own handler such a device returns an empty range, and
    /// stays where it was.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to), for a range that the device still returns afterwards;
    /// [`Refusal::UnstableRange`] if it returns a different range 100 times in succession. A device that returned
    /// several ranges stays at the last one that it was moved to.
    pub fn reindex(&self, id: DeviceId) -> Result<(), Refusal> {
        let registry = self.devices.restored()?;
        let device = registry.view(|view| Some(view.device(id)?.device().tag().device.clone()));
        match device.ok_or(Refusal::Unknown { id, bus: None })? {
            Device::Mmio(device) => self.follow(id, &*device),
            Device::SysReg(device) => self.follow(id, &*device),
            Device::Port(device) => self.follow(id, &*device),
        }
    }

    fn follow<R: BusRange>(&self, id: DeviceId, device: &B::Dev<R>) -> Result<(), Refusal> {
        let mut range = device.address_range();
        for _ in 0..100 {
            let moved = self.move_to(id, range);
            let now = device.address_range();
            if now.span() == range.span() {
                return moved;
            }
            range = now;
        }
        Err(Refusal::UnstableRange { id, bus: R::ID })
    }

    /// Makes all changes that `record` records, on all buses, at one instant. Makes none of them if `record` fails or
    /// unwinds, or if its changes conflict.
    ///
    /// `record` runs once. Only the *result* of its changes counts: devices may swap their ranges. If another change is
    /// published first, the recorded changes are applied again to its result. Returns the result of `record`, and the
    /// removed devices in the order of the removals.
    ///
    /// # Errors
    ///
    /// The error of `record`, or the [`Refusal`] of the first recorded change that cannot be made. An overlap is
    /// reported only if there is no other reason. The registry then drops its references to the devices to be added.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use axdevice::{
    ///     AccessWidth, AxResult, BaseDeviceOps, DeviceId, EmulatedDeviceType, Port, PortRange,
    ///     Refusal, SharedVmDevices,
    /// };
    ///
    /// fn ports(first: u16) -> PortRange {
    ///     PortRange::new(Port(first), Port(first + 7))
    /// }
    ///
    /// /// A device that reads as a number.
    /// struct Reads(u16, usize);
    ///
    /// impl BaseDeviceOps<PortRange> for Reads {
    ///     fn emu_type(&self) -> EmulatedDeviceType {
    ///         EmulatedDeviceType::Console
    ///     }
    ///
    ///     fn address_range(&self) -> PortRange {
    ///         ports(self.0)
    ///     }
    ///
    ///     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
    ///         Ok(self.1)
    ///     }
    ///
    ///     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// /// Swaps the ranges of two devices.
    /// fn swap(devices: &SharedVmDevices, a: DeviceId, b: DeviceId) -> Result<(), Refusal> {
    ///     devices.update(|batch| {
    ///         batch.move_to(a, ports(0x3f8))?;
    ///         batch.move_to(b, ports(0x2f8))
    ///     })?;
    ///     Ok(())
    /// }
    ///
    /// /// Puts a device in the place of another: each access finds one of them.
    /// fn replace(
    ///     devices: &SharedVmDevices,
    ///     old: DeviceId,
    ///     new: Arc<Reads>,
    /// ) -> Result<DeviceId, Refusal> {
    ///     let (id, removed) = devices.update(|batch| {
    ///         batch.remove(old)?;
    ///         batch.add_port_dev(new)
    ///     })?;
    ///     assert_eq!(removed[0].id(), old);
    ///     Ok(id)
    /// }
    ///
    /// let devices = SharedVmDevices::default();
    /// let a = devices.add_port_dev(Arc::new(Reads(0x2f8, 1)))?;
    /// let b = devices.add_port_dev(Arc::new(Reads(0x3f8, 2)))?;
    /// let read = |port| devices.handle_port_read(Port(port), AccessWidth::Byte);
    /// swap(&devices, a, b)?;
    /// assert_eq!([0x2f8, 0x3f8].map(read), [Ok(2), Ok(1)]);
    /// replace(&devices, b, Arc::new(Reads(0x2f8, 3)))?;
    /// assert_eq!([0x2f8, 0x3f8].map(read), [Ok(3), Ok(1)]);
    /// # Ok::<(), axdevice::AxError>(())
    /// ```
    pub fn update<T, E: From<Refusal>>(
        &self,
        record: impl FnOnce(&mut Batch<'_, B>) -> Result<T, E>,
    ) -> Result<(T, Vec<Removed<B>>), E> {
        let registry = self.devices.restored()?;
        let mut batch = Batch::new(registry.batch(), None);
        let value = record(&mut batch)?;
        let removed = batch.publish()?;
        Ok((value, removed.into_iter().map(Removed::new).collect()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::{Cell, OnceCell};
    use std::rc::{Rc, Weak};

    use ax_errno::{AxError, AxResult};
    use axaddrspace::device::{AccessWidth, Port};
    use busmap::{BusId, Span};

    use super::*;
    use crate::{
        bus::{Unbound, sealed::Bus},
        mount,
        registry::{AxVmDevices, SharedVmDevices},
        testing::Echo,
        unmapped::Unmapped,
    };

    fn echo(first: u64, last: u64) -> Arc<Echo<PortRange>> {
        Echo::shared(Span::new(first, last).unwrap())
    }

    #[test]
    fn a_refused_device_is_given_back() {
        let devices = SharedVmDevices::default();
        let owner = devices.add_port_dev(echo(0, 7)).unwrap();
        let device = echo(7, 8);
        let error = devices.add_port_dev(device.clone()).unwrap_err();
        let refusal = Refusal::Overlap {
            bus: BusId::Port,
            wanted: Span::new(7, 8).unwrap(),
            owner,
            owned: Span::new(0, 7).unwrap(),
        };
        assert_eq!(error.refusal(), refusal);
        drop(error);
        assert_eq!(
            Arc::strong_count(&device),
            1,
            "the registry kept nothing of it"
        );
        assert!(devices.add_port_dev(echo(8, 9)).unwrap() > owner);
    }

    #[test]
    fn a_batch_names_its_devices_and_goes_on_without_empty_ranges() {
        let devices = AxVmDevices::default();
        let mut batch = Batch::<Unbound>::new(devices.core().batch(), Some("uart".into()));
        batch.add_port_dev(echo(0, 7)).unwrap();
        let empty = Arc::new(Echo::new(PortRange::EMPTY));
        let bus = BusId::Port;
        let refused = batch.add_port_dev(empty);
        assert_eq!(refused, Err(Refusal::Empty { bus, at: 1 }));
        batch.publish().unwrap();
        let map = "port     0x0..=0x7 #1 uart\n";
        assert_eq!(devices.snapshot().to_string(), map);
    }

    /// The error type of an add converts.
    #[test]
    fn an_update_may_end_in_an_add() {
        let devices = SharedVmDevices::default();
        let (id, _) = (devices.update(|batch| batch.add_port_dev(echo(0, 7)))).unwrap();
        let refused = devices.update(|batch| batch.add_port_dev(echo(7, 8)));
        assert!(matches!(refused, Err(Refusal::Overlap { owner, .. }) if owner == id));
    }

    const WIDTH: AccessWidth = AccessWidth::Byte;

    std::thread_local! {
        /// The registry and the id of the one [`Bar`] of this thread's test. It cannot hold them itself: a built-in
        /// device is `Send`.
        static REGISTERED: OnceCell<(Weak<AxVmDevices>, DeviceId)> = const { OnceCell::new() };
    }

    fn registered() -> (Rc<AxVmDevices>, DeviceId) {
        REGISTERED.with(|registered| {
            let (devices, id) = registered.get().unwrap();
            (devices.upgrade().unwrap(), *id)
        })
    }

    /// A built-in device with one port. A write sets the number of the port.
    struct Bar(Cell<u16>);

    impl BaseDeviceOps<PortRange> for Bar {
        fn emu_type(&self) -> axvmconfig::EmulatedDeviceType {
            axvmconfig::EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> PortRange {
            PortRange::new(Port(self.0.get()), Port(self.0.get()))
        }

        fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
            let (devices, id) = registered();
            let removed = devices.remove(id)?;
            assert!(removed.wait(3).is_err(), "it is inside");
            Ok(0)
        }

        fn handle_write(&self, _: Port, _: AccessWidth, port: usize) -> AxResult {
            let (devices, id) = registered();
            self.0.set(port as u16);
            // The gate is shut; the registry reads the range of the device behind it.
            Ok(devices.reindex(id)?)
        }
    }

    #[test]
    fn a_gated_device_moves_and_removes_itself_in_its_own_handler() {
        let devices = Rc::new(AxVmDevices::default().with_unmapped(Unmapped::Error));
        let mut batch = Batch::<Unbound>::new(devices.core().batch(), None);
        let mount = mount::serialized::<Unbound, PortRange, _, _>(Bar(8.into()), ());
        let bar = Arc::downgrade(&mount.device);
        let id = batch.mount::<PortRange>(mount).unwrap();
        batch.publish().unwrap();
        let set = REGISTERED.with(|registered| registered.set((Rc::downgrade(&devices), id)));
        assert!(set.is_ok());
        let write = |port, to| devices.handle_port_write(Port(port), WIDTH, to);
        assert_eq!(write(8, 0x10), Ok(()));
        assert_eq!(write(8, 0x10), Err(AxError::NotFound));
        assert_eq!(devices.handle_port_read(Port(0x10), WIDTH), Ok(0));
        assert!(devices.find_port_dev(Port(0x10)).is_none());
        devices.reclaim();
        assert_eq!(bar.strong_count(), 0, "nor does its gate hold it");
    }
}
