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
/// Each of these reads the device's range, once, and publishes new tables that list it. The
/// methods take no lock and may run on many threads at once, from inside a device's handler too;
/// none is lost. The new tables cost time and memory in proportion to the number of devices.
///
/// # Errors
///
/// All give the device back, and say why it was [refused](crate::Refusal): for a range that is empty or
/// backwards, an overlap with another device or with the IVC range, or for want of memory for the
/// tables. The tables are then as they were. A refusal is logged at `error!` too, for callers written for 0.4.10, whose methods
/// returned nothing.
impl<B: DeviceBound> VmDevices<B> {
    /// Adds a device to guest physical memory.
    ///
    /// # A device that is not `Sync`
    ///
    /// In a [`SharedVmDevices`](crate::SharedVmDevices) a device is `Send + Sync`. Of one that is not
    /// `Sync` the compiler says that something in it "cannot be shared between threads safely":
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
    /// [`Serialized`](crate::Serialized) makes it one, behind a lock of its own:
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

    /// Adds a system register device. One that is not `Sync` goes into a
    /// [`SharedVmDevices`](crate::SharedVmDevices) as a [`Serialized`](crate::Serialized) one: see
    /// [`add_mmio_dev`](Self::add_mmio_dev).
    pub fn add_sys_reg_dev(
        &self,
        dev: Arc<B::Dev<SysRegAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<SysRegAddrRange>>> {
        self.add(dev)
    }

    /// Adds a port I/O device. One that is not `Sync` goes into a
    /// [`SharedVmDevices`](crate::SharedVmDevices) as a [`Serialized`](crate::Serialized) one: see
    /// [`add_mmio_dev`](Self::add_mmio_dev).
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

/// Hot-remove, moves, and changes that belong together.
///
/// Like a hot-add, each of these publishes new tables once, takes no lock, and may be called on many
/// threads at once and from inside a device's handler, also that of the device in question. After an
/// error the tables are as they were, but for [`reindex`](Self::reindex).
///
/// In a registry [with a listener](Self::with_listener) changes wait for each other, and each can also be
/// refused with [`Refusal::Vetoed`] and, if the listener makes it, [`Refusal::Reentrant`].
impl<B: DeviceBound> VmDevices<B> {
    /// Removes a device: no access that starts when this has returned reaches it.
    ///
    /// vCPUs may still be inside the device, though: what is given says when the last has left.
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
    /// assert_eq!(Arc::strong_count(&uart), 1, "nobody else has it");
    /// ```
    pub fn remove(&self, id: DeviceId) -> Result<Removed<B>, Refusal> {
        let removed = self.devices.restored()?.remove(id)?;
        Ok(Removed::new(removed))
    }

    /// Gives a device another range in place of all that it has, such as that to which the guest has
    /// moved its BAR. No dispatch finds it in both ranges, or in neither.
    ///
    /// The device is not called: this is legal from inside its own handler, whatever locks that
    /// holds. A device that reckons with its range changes its own idea of it when this has
    /// succeeded; until every vCPU has left the old tables it may be called with addresses of either
    /// range.
    ///
    /// A caller that stores the range itself and moves it on several threads must order the calls, or a thread with an
    /// outdated range could publish last. [`reindex`](Self::reindex) reads the range again.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the device is not on the bus of `range`; [`Refusal::NotMapped`] if it has
    /// no range at the moment; for a range that is empty, backwards, or overlaps [another
    /// device's](Refusal::Overlap) or [the IVC range](Refusal::Ivc); [`Refusal::NoMemory`].
    pub fn move_to<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        Ok(self.devices.restored()?.remap::<R::Bus>(id, span)?)
    }

    /// Gives a device one more range, or one again, such as that of a BAR whose decoding is on from now
    /// on.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to), but for [`Refusal::NotMapped`].
    pub fn map<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        Ok(self.devices.restored()?.map::<R::Bus>(id, span)?)
    }

    /// Takes a range from a device, which stays registered, with its id: a BAR whose decoding is off.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]; [`Refusal::NotMapped`] if the device does not own exactly this range;
    /// for a range that is empty or backwards; [`Refusal::NoMemory`].
    pub fn unmap<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        Ok(self.devices.restored()?.unmap::<R::Bus>(id, span)?)
    }

    /// Asks a device for its range, and [moves](Self::move_to) it there; then asks again, until it
    /// gives the same. So when the last of several calls on several threads has returned, the table
    /// and the device agree.
    ///
    /// Unlike `move_to` this calls the device. A device that owns several ranges owns one afterwards. A
    /// [`Serialized`](crate::Serialized) one is waited for.
    /// In its own handler it says that its range is empty, and stays where it was.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to), of a range that the device still gives afterwards;
    /// [`Refusal::Restless`] if it gives another range each of 100 times. A device that has given
    /// several ranges is left at the last that it was moved to.
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
        Err(Refusal::Restless { id, bus: R::ID })
    }

    /// Makes all the changes that `record` records, on all buses, at one instant; or, if `record`
    /// fails, unwinds, or records what does not fit together, none of them.
    ///
    /// `record` runs once. What it has recorded is judged by the *result*: devices may swap their ranges.
    /// If another change is published first, the recorded ones are applied again to its result. Returns the result of
    /// `record`, and the removed devices in the order of the removals.
    ///
    /// # Errors
    ///
    /// The error of `record`, or the [`Refusal`] of the first recorded change that cannot be made. An overlap is
    /// reported only if there is no other reason. The devices to be added are dropped then, except for the caller's own
    /// counts.
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

    /// Its error type converts.
    #[test]
    fn an_update_may_end_in_an_add() {
        let devices = SharedVmDevices::default();
        let (id, _) = (devices.update(|batch| batch.add_port_dev(echo(0, 7)))).unwrap();
        let refused = devices.update(|batch| batch.add_port_dev(echo(7, 8)));
        assert!(matches!(refused, Err(Refusal::Overlap { owner, .. }) if owner == id));
    }

    const WIDTH: AccessWidth = AccessWidth::Byte;

    std::thread_local! {
        /// Where the one [`Bar`] of this thread's test is. A built-in device is `Send`, so that it
        /// cannot say itself.
        static REGISTERED: OnceCell<(Weak<AxVmDevices>, DeviceId)> = const { OnceCell::new() };
    }

    fn registered() -> (Rc<AxVmDevices>, DeviceId) {
        REGISTERED.with(|registered| {
            let (devices, id) = registered.get().unwrap();
            (devices.upgrade().unwrap(), *id)
        })
    }

    /// A built-in device whose one port is where it was last written to be.
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
