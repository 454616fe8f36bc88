//! Changes of the tables: hot-add, and the [`Batch`] of changes that are made together.

use alloc::vec::Vec;
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;

use crate::{
    bus::BusRange,
    device::{DeviceBound, DeviceId, DeviceIds},
    error::{AddError, Refusal},
    registry::VmDevices,
    sync::Arc,
    table::{Entry, Mount},
    tables::Edit,
};

impl<B: DeviceBound> VmDevices<B> {
    pub(crate) fn add<R: BusRange>(
        &self,
        device: Arc<B::Dev<R>>,
    ) -> Result<DeviceId, AddError<B::Dev<R>>> {
        let mut batch = Batch::new(&self.ids, None);
        let added = self
            .settle()
            .and_then(|()| batch.mount(Mount::bare(device.clone())))
            .and_then(|id| self.publish(&batch.edits).map(|()| id));
        added.map_err(|refusal| {
            let bus = R::NAME;
            self.refusals.error(format_args!("on bus {bus}, {refusal}"));
            AddError::new(device, refusal)
        })
    }

    /// Publishes tables with all of `edits` made, or none, and frees what has been replaced.
    fn publish(&self, edits: &[Edit<B>]) -> Result<(), Refusal> {
        self.tables.rcu(|tables| tables.edited(edits))?;
        self.tables.reclaim();
        Ok(())
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
        self.edits.try_reserve(1).map_err(|_| Refusal::NoMemory)?;
        let id = self.ids.next();
        let entry = Entry::new(span, id, self.name.clone(), mount);
        self.edits.push(Edit::Add(R::on(entry)));
        Ok(id)
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
    use super::*;
    use crate::{
        bus::{OnBus, sealed::Bus},
        device::Unbound,
        registry::SharedVmDevices,
        span::Span,
        testing::Probe,
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
}
