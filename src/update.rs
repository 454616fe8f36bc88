//! Changes of the tables: hot-add, hot-remove, moves, and the [`Batch`] of changes that are made
//! together.

use alloc::vec::Vec;
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;

use crate::{
    bus::BusRange,
    device::{Device, DeviceBound, DeviceId, DeviceIds},
    error::{AddError, Refusal},
    registry::VmDevices,
    removed::Removed,
    span::Span,
    sync::{Arc, mutant},
    table::{Entry, Mount, reserve, reserved},
    tables::Edit,
};

impl<B: DeviceBound> VmDevices<B> {
    pub(crate) fn add<R: BusRange>(
        &self,
        device: Arc<B::Dev<R>>,
    ) -> Result<DeviceId, AddError<B::Dev<R>>> {
        let mut batch = Batch::new(&self.ids, None);
        let added = (batch.mount(Mount::bare(device.clone())))
            .and_then(|id| self.make(&batch.edits).map(|_| id));
        added.map_err(|refusal| {
            let bus = R::NAME;
            self.refusals.error(format_args!("on bus {bus}, {refusal}"));
            AddError::new(device, refusal)
        })
    }

    /// Publishes tables with all of `edits` made, or none, and frees what has been replaced. Gives
    /// what was removed.
    fn make(&self, edits: &[Edit<B>]) -> Result<Vec<Removed<B>>, Refusal> {
        self.settle()?;
        let removals = edits.iter().filter(|edit| matches!(edit, Edit::Remove(_)));
        let mut removed = reserved(removals.count())?;
        let mut taken = Vec::new();
        self.tables.rcu(|tables| {
            let edited = tables.edited(edits)?;
            taken = edited.removed;
            Ok::<_, Refusal>(edited.tables)
        })?;
        let retired = self.tables.retired();
        removed.extend(taken.into_iter().map(|entry| Removed::new(entry, retired)));
        self.tables.reclaim();
        Ok(removed)
    }
}

/// Hot-remove, moves, and changes that belong together.
///
/// Like a hot-add, each of these publishes new tables once, takes no lock, and may be called on many
/// threads at once and from inside a device's handler, also that of the device in question. After an
/// error the tables are as they were.
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
    /// # use std::sync::Arc;
    /// # use axaddrspace::device::{AccessWidth, Port, PortRange};
    /// # use axdevice_base::BaseDeviceOps;
    /// use axdevice::{Device, SharedVmDevices, Unmapped};
    ///
    /// # struct Uart;
    /// # impl BaseDeviceOps<PortRange> for Uart {
    /// #     fn emu_type(&self) -> axvmconfig::EmulatedDeviceType { axvmconfig::EmulatedDeviceType::Console }
    /// #     fn address_range(&self) -> PortRange { PortRange::new(Port(0x3f8), Port(0x3ff)) }
    /// #     fn handle_read(&self, _: Port, _: AccessWidth) -> ax_errno::AxResult<usize> { Ok(0) }
    /// #     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> ax_errno::AxResult { Ok(()) }
    /// # }
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
        let mut removed = self.make(&[Edit::Remove(id)])?;
        removed.pop().ok_or(Refusal::Unknown { id })
    }

    /// Gives a device another range, such as that to which the guest has moved its BAR. No dispatch
    /// finds it in both ranges, or in neither.
    ///
    /// The device is not called: this is legal from inside its own handler, whatever locks that
    /// holds. A device that reckons with its range changes its own idea of it when this has
    /// succeeded; until every vCPU has left the old tables it may be called with addresses of either
    /// range.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`] if the device is not on the bus of `range`; for a range that is empty,
    /// wraps, or [overlaps](Refusal::Overlap) another device's; [`Refusal::NoMemory`].
    pub fn move_to<R: BusRange>(&self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        if mutant("move-by-way-of")
            && let Some(aside) = Span::new(0, 0)
        {
            self.make(&[Edit::Move(id, R::on(aside))])?;
        }
        self.make(&[Edit::Move(id, R::on(span))]).map(drop)
    }

    /// Asks a device for its range again, and [moves](Self::move_to) it there.
    ///
    /// Unlike `move_to` this calls the device. A [`Serialized`](crate::Serialized) one is waited for.
    /// In its own handler it says that its range is empty, and stays where it was.
    ///
    /// # Errors
    ///
    /// As [`move_to`](Self::move_to).
    pub fn reindex(&self, id: DeviceId) -> Result<(), Refusal> {
        let device = self.current().device(id).ok_or(Refusal::Unknown { id })?;
        match device {
            Device::Mmio(device) => self.move_to(id, device.address_range()),
            Device::SysReg(device) => self.move_to(id, device.address_range()),
            Device::Port(device) => self.move_to(id, device.address_range()),
        }
    }

    /// Makes all the changes that `record` records, on all buses, at one instant; or, if `record`
    /// fails, unwinds, or records what does not fit together, none of them.
    ///
    /// `record` runs once. What it has recorded is made in that order, so that a range may be freed
    /// and taken in one update; if another change was published meanwhile, it is made again, on what
    /// that has left. Gives what `record` gave, and what was removed, in the order of the removals.
    ///
    /// # Errors
    ///
    /// What `record` gives, or the [`Refusal`] of the first recorded change that cannot be made. The
    /// devices that were to be added are dropped then, but for the caller's own counts.
    ///
    /// # Examples
    ///
    /// ```
    /// # use axaddrspace::device::{Port, PortRange};
    /// # use axdevice::{DeviceId, Refusal, SharedVmDevices};
    /// /// Swaps the ranges of two devices.
    /// fn swap(devices: &SharedVmDevices, a: DeviceId, b: DeviceId) -> Result<(), Refusal> {
    ///     let ports = |first| PortRange::new(Port(first), Port(first + 7));
    ///     devices.update(|batch| {
    ///         batch.move_to(a, ports(0xfff0))?; // out of the way
    ///         batch.move_to(b, ports(0x3f8))?;
    ///         batch.move_to(a, ports(0x2f8))
    ///     })?;
    ///     Ok(())
    /// }
    /// ```
    pub fn update<T, E: From<Refusal>>(
        &self,
        record: impl FnOnce(&mut Batch<'_, B>) -> Result<T, E>,
    ) -> Result<(T, Vec<Removed<B>>), E> {
        let mut batch = Batch::new(&self.ids, None);
        let value = record(&mut batch)?;
        if mutant("update-in-steps") {
            for edit in batch.edits.drain(..) {
                drop(self.make(&[edit])?);
            }
        }
        let removed = self.make(&batch.edits)?;
        Ok((value, removed))
    }
}

/// Changes that are recorded now and made together, or not at all.
///
/// Recording a device asks for its range and gives it its id. Whether the devices fit, together and
/// with those that are there, is seen when the batch is made.
pub struct Batch<'r, B: DeviceBound> {
    ids: &'r DeviceIds,
    name: Option<Arc<str>>,
    edits: Vec<Edit<B>>,
}

impl<'r, B: DeviceBound> Batch<'r, B> {
    /// An empty batch, whose devices will bear `name` in memory maps.
    pub(crate) const fn new(ids: &'r DeviceIds, name: Option<Arc<str>>) -> Self {
        Self {
            ids,
            name,
            edits: Vec::new(),
        }
    }

    pub(crate) fn edits(&self) -> &[Edit<B>] {
        &self.edits
    }

    /// Records a device.
    pub(crate) fn mount<R: BusRange>(
        &mut self,
        mount: Mount<B::Dev<R>>,
    ) -> Result<DeviceId, Refusal> {
        let span = mount.device.address_range().span()?;
        let id = self.ids.next();
        let entry = Entry::new(span, id, self.name.clone(), mount);
        self.record(Edit::Add(R::on(entry)))?;
        Ok(id)
    }

    fn record(&mut self, edit: Edit<B>) -> Result<(), Refusal> {
        reserve(&mut self.edits, 1)?;
        self.edits.push(edit);
        Ok(())
    }

    fn add<R: BusRange>(
        &mut self,
        device: Arc<B::Dev<R>>,
    ) -> Result<DeviceId, AddError<B::Dev<R>>> {
        let mount = Mount::bare(device.clone());
        self.mount(mount)
            .map_err(|refusal| AddError::new(device, refusal))
    }
}

/// Recording devices to be added.
///
/// # Errors
///
/// For an empty or wrapping range, or for want of memory, the device is given back. The batch can
/// go on without it.
impl<B: DeviceBound> Batch<'_, B> {
    /// Records a device in guest physical memory.
    pub fn add_mmio_dev(
        &mut self,
        dev: Arc<B::Dev<GuestPhysAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<GuestPhysAddrRange>>> {
        self.add(dev)
    }

    /// Records a system register device.
    pub fn add_sys_reg_dev(
        &mut self,
        dev: Arc<B::Dev<SysRegAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<SysRegAddrRange>>> {
        self.add(dev)
    }

    /// Records a port I/O device.
    pub fn add_port_dev(
        &mut self,
        dev: Arc<B::Dev<PortRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<PortRange>>> {
        self.add(dev)
    }
}

/// Recording other changes, of devices that are registered or were recorded before.
///
/// # Errors
///
/// Whether there is such a device, and whether it fits, is seen when the batch is made. These fail
/// for an empty or wrapping range, or for want of memory.
impl<B: DeviceBound> Batch<'_, B> {
    /// Records that a device is removed: see [`VmDevices::remove`].
    pub fn remove(&mut self, id: DeviceId) -> Result<(), Refusal> {
        self.record(Edit::Remove(id))
    }

    /// Records that a device gets another range: see [`VmDevices::move_to`].
    pub fn move_to<R: BusRange>(&mut self, id: DeviceId, range: R) -> Result<(), Refusal> {
        let span = range.span()?;
        self.record(Edit::Move(id, R::on(span)))
    }
}

impl<B: DeviceBound> fmt::Debug for Batch<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("name", &self.name)
            .field("edits", &self.edits.len())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::{Cell, OnceCell};
    use std::rc::{Rc, Weak};

    use ax_errno::{AxError, AxResult};
    use axaddrspace::device::{AccessWidth, Port};

    use super::*;
    use crate::{
        bus::{OnBus, sealed::Bus},
        device::Unbound,
        registry::{AxVmDevices, SharedVmDevices},
        testing::Probe,
        unmapped::Unmapped,
    };

    fn probe(first: usize, last: usize) -> Arc<Probe<PortRange>> {
        Probe::shared(Span::new(first, last).unwrap())
    }

    #[test]
    fn a_refused_device_is_given_back() {
        let devices = SharedVmDevices::default();
        let owner = devices.add_port_dev(probe(0, 7)).unwrap();
        let device = probe(7, 8);
        let error = devices.add_port_dev(device.clone()).unwrap_err();
        let refusal = Refusal::Overlap {
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
        assert!(devices.add_port_dev(probe(8, 9)).unwrap() > owner);
    }

    #[test]
    fn a_batch_names_its_devices_and_refuses_empty_ranges_at_once() {
        let ids = DeviceIds::new();
        let mut batch = Batch::<Unbound>::new(&ids, Some("uart".into()));
        let id = batch.add_port_dev(probe(0, 7)).unwrap();
        let empty = Arc::new(Probe::new(PortRange::EMPTY));
        let error = batch.add_port_dev(empty).unwrap_err();
        assert_eq!(error.refusal(), Refusal::Empty { at: 1 });
        let [Edit::Add(OnBus::Port(entry))] = batch.edits() else {
            panic!("one device was recorded");
        };
        assert_eq!(
            (entry.id(), entry.registration.name.as_deref()),
            (id, Some("uart"))
        );
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
            // The gate is shut meanwhile; the registry asks the device behind it.
            Ok(devices.reindex(id)?)
        }
    }

    #[test]
    fn a_gated_device_moves_and_removes_itself_in_its_own_handler() {
        let devices = Rc::new(AxVmDevices::default().with_unmapped(Unmapped::Error));
        let mut batch = Batch::new(&devices.ids, None);
        let mount = Unbound::serialised::<PortRange, _, _>(Bar(8.into()), ());
        let bar = Arc::downgrade(&mount.device);
        let id = batch.mount(mount).unwrap();
        devices.make(&batch.edits).unwrap();
        drop(batch);
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
