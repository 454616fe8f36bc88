//! Lookups that outlast the table they were made in: `find_*`, `iter_*` and `iter_mut_*`.

use alloc::vec::Vec;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use log::error;

use crate::{
    bus::{BusAddr, BusRange, Family, PerBus, sealed::Bus},
    device::{DeviceBound, DeviceId},
    error::Refusal,
    ledger::Ledger,
    publish::Guard,
    registry::VmDevices,
    span::Span,
    sync::Arc,
    table::{Entry, Mount, Table},
    tables::{Edit, Tables},
};

impl<B: DeviceBound> VmDevices<B> {
    /// The current tables, with what `iter_mut_*` lent out back in them.
    pub(crate) fn current(&self) -> Guard<'_, Tables<B>> {
        let tables = self.tables.load();
        if self.settled(&tables) {
            return self.tables.load();
        }
        tables
    }

    pub(crate) fn find<A: BusAddr>(&self, addr: A) -> Option<Arc<B::Dev<A::Range>>> {
        let tables = self.current();
        let entry = tables.of::<A::Range>().find(A::Range::number(addr))?;
        Some(entry.device().clone())
    }

    pub(crate) fn iter<R: BusRange>(&self) -> impl Iterator<Item = &Arc<B::Dev<R>>> {
        let tables = self.current();
        let ledger = R::of(&self.ledgers);
        let entries = tables.of::<R>().by_registration().into_iter();
        let lent: Vec<_> = entries.map(|e| ledger.lend(&e.registration.loan)).collect();
        lent.into_iter()
    }

    pub(crate) fn iter_mut<R: BusRange>(&mut self) -> impl Iterator<Item = &mut Arc<B::Dev<R>>> {
        if !self.tables.load().stale {
            self.loosen();
        }
        R::of_mut(&mut self.loose.0)
            .iter_mut()
            .map(|place| &mut place.device)
    }

    /// Takes every device out of the published tables into the field `loose`.
    fn loosen(&mut self) {
        self.loose = Loose::of(&self.tables.load());
        self.tables.replace(Tables::stale());
        // What was lent is listed anew, as new registrations, when `settle` puts it back.
        self.ledgers = PerBus::ledgers();
    }

    /// Whether `tables` were stale and no longer are.
    #[inline]
    pub(crate) fn settled(&self, tables: &Tables<B>) -> bool {
        tables.stale && self.settle().is_ok()
    }

    /// Publishes tables of the devices that `iter_mut_*` lent out, if there are any.
    #[cold]
    pub(crate) fn settle(&self) -> Result<(), Refusal> {
        let published = self.tables.rcu(|tables| {
            if !tables.stale {
                return Err(None);
            }
            self.loose.tables().map_err(Some)
        });
        match published {
            Err(Some(refusal)) => Err(refusal),
            Ok(()) | Err(None) => Ok(()),
        }
    }
}

/// A ledger for every bus.
pub(crate) type Ledgers<B> = PerBus<LedgerOf<B>>;

/// The family of ledgers.
pub(crate) struct LedgerOf<B>(B);

impl<B: DeviceBound> Family for LedgerOf<B> {
    type Of<R: BusRange> = Ledger<B::Dev<R>>;
}

impl<B: DeviceBound> Ledgers<B> {
    pub(crate) fn ledgers() -> Self {
        Self {
            mmio: Ledger::new(),
            sys_reg: Ledger::new(),
            port: Ledger::new(),
        }
    }
}

/// The devices that `iter_mut_*` has lent out, and what is needed to put them back.
///
/// They are edited through `&mut`, and read through `&` when they are put back.
pub(crate) struct Loose<B: DeviceBound>(PerBus<PlacesOf<B>>);

/// The family of places, in the order of registration.
struct PlacesOf<B>(B);

impl<B: DeviceBound> Family for PlacesOf<B> {
    type Of<R: BusRange> = Vec<Place<B::Dev<R>>>;
}

/// Where a device was registered, and which is there now.
struct Place<D: ?Sized> {
    id: DeviceId,
    name: Option<Arc<str>>,
    /// As it was.
    span: Span,
    mount: Mount<D>,
    /// As it is.
    device: Arc<D>,
}

impl<B: DeviceBound> Loose<B> {
    pub(crate) fn new() -> Self {
        Self(PerBus {
            mmio: Vec::new(),
            sys_reg: Vec::new(),
            port: Vec::new(),
        })
    }

    fn of(tables: &Tables<B>) -> Self {
        Self(PerBus {
            mmio: places(tables.of::<GuestPhysAddrRange>()),
            sys_reg: places(tables.of::<SysRegAddrRange>()),
            port: places(tables.of::<PortRange>()),
        })
    }

    /// Tables of the devices as they are, or else as they were.
    fn tables(&self) -> Result<Tables<B>, Refusal> {
        self.tables_of(Which::Now).or_else(|refusal| {
            error!("changed devices are put back as they were: {refusal}");
            self.tables_of(Which::Before)
        })
    }

    fn tables_of(&self, which: Which) -> Result<Tables<B>, Refusal> {
        let mut edits = Vec::new();
        self.list::<GuestPhysAddrRange>(which, &mut edits)?;
        self.list::<SysRegAddrRange>(which, &mut edits)?;
        self.list::<PortRange>(which, &mut edits)?;
        Tables::new().edited(&edits)
    }

    fn list<R: BusRange>(&self, which: Which, edits: &mut Vec<Edit<B>>) -> Result<(), Refusal> {
        for place in R::of(&self.0) {
            let (span, mount) = match which {
                Which::Before => (place.span, place.mount.clone()),
                Which::Now => (place.device.address_range().span()?, place.mount_now()),
            };
            let entry = Entry::new(span, place.id, place.name.clone(), mount);
            edits.push(Edit::Add(R::on(entry)));
        }
        Ok(())
    }
}

/// Which version of the devices to put back.
#[derive(Clone, Copy)]
enum Which {
    /// As they were when they were lent out.
    Before,
    /// As they are.
    Now,
}

impl<D: ?Sized> Place<D> {
    /// How the device that is there now is called: as before, unless it is another.
    fn mount_now(&self) -> Mount<D> {
        if Arc::ptr_eq(&self.device, &self.mount.device) {
            self.mount.clone()
        } else {
            Mount::bare(self.device.clone())
        }
    }
}

fn places<D: ?Sized>(table: &Table<D>) -> Vec<Place<D>> {
    let entries = table.by_registration().into_iter();
    let places = entries.map(|entry| Place {
        id: entry.id(),
        name: entry.registration.name.clone(),
        span: entry.span,
        mount: Mount {
            device: entry.device().clone(),
            handler: entry.handler.clone(),
        },
        device: entry.device().clone(),
    });
    places.collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::device::{AccessWidth, Port};

    use super::*;
    use crate::{registry::AxVmDevices, testing::Probe, unmapped::Unmapped};

    fn probe(first: usize, last: usize) -> Arc<Probe<PortRange>> {
        Probe::shared(Span::new(first, last).unwrap())
    }

    /// Two port devices and one on MMIO.
    fn devices() -> AxVmDevices {
        let devices = AxVmDevices::default().with_unmapped(Unmapped::Error);
        devices.add_port_dev(probe(8, 9)).unwrap();
        devices.add_port_dev(probe(0, 1)).unwrap();
        devices
            .add_mmio_dev(Probe::shared(Span::new(0, 1).unwrap()))
            .unwrap();
        devices
    }

    fn answers(devices: &AxVmDevices, port: u16) -> bool {
        devices
            .handle_port_read(Port(port), AccessWidth::Byte)
            .is_ok()
    }

    #[test]
    fn what_iter_lent_lives_while_the_registry_is_borrowed() {
        let devices = devices();
        let lent: Vec<_> = devices.iter_port_dev().collect();
        devices.add_port_dev(probe(2, 3)).unwrap();
        let starts = lent.iter().map(|device| device.address_range().start.0);
        assert!(starts.eq([8, 0]));
        assert_eq!(devices.iter_port_dev().count(), 3);
    }

    #[test]
    fn a_replaced_device_takes_effect_at_the_first_use() {
        let mut devices = devices();
        let before: Vec<_> = devices.snapshot().port().map(|row| row.0).collect();
        *devices.iter_mut_port_dev().next().unwrap() = probe(0x20, 0x21);
        assert!(answers(&devices, 0x20) && answers(&devices, 0));
        assert!(!answers(&devices, 8));
        let mut after: Vec<_> = devices.snapshot().port().map(|row| row.0).collect();
        after.sort_unstable_by_key(|id| core::cmp::Reverse(*id));
        assert_eq!(before, after, "a place keeps its id");
        assert_eq!(
            devices.iter_mmio_dev().count(),
            1,
            "the other buses are back too"
        );
    }

    #[test]
    fn several_buses_can_be_changed_before_the_first_use() {
        let mut devices = devices();
        for device in devices.iter_mut_port_dev() {
            let range = device.address_range();
            let (first, last) = (range.start.0 + 0x40, range.end.0 + 0x40);
            *device = probe(first.into(), last.into());
        }
        let moved = Span::new(0x1000, 0x1fff).unwrap();
        *devices.iter_mut_mmio_dev().next().unwrap() = Probe::shared(moved);
        assert_eq!(devices.iter_mut_sys_reg_dev().count(), 0);
        assert!(answers(&devices, 0x48) && answers(&devices, 0x40));
        assert!(devices.find_mmio_dev(0x1000.into()).is_some());
    }

    #[test]
    fn ranges_that_do_not_fit_together_are_all_put_back() {
        let mut devices = devices();
        for device in devices.iter_mut_port_dev() {
            *device = probe(4, 5);
        }
        assert!(devices.find_port_dev(Port(4)).is_none());
        assert!(answers(&devices, 8) && answers(&devices, 0));
        *devices.iter_mut_port_dev().next().unwrap() = probe(4, 5);
        assert!(answers(&devices, 4), "and can be changed again");
    }

    #[test]
    fn a_change_after_iter_mut_loses_nothing() {
        let mut devices = devices();
        devices.iter_mut_port_dev().for_each(drop);
        let refused = devices.add_port_dev(probe(9, 10)).unwrap_err();
        assert!(matches!(refused.refusal(), Refusal::Overlap { .. }));
        devices.add_port_dev(probe(2, 3)).unwrap();
        assert_eq!(devices.iter_port_dev().count(), 3);
    }

    #[test]
    fn iter_mut_lets_go_of_what_iter_has_lent() {
        let mut devices = devices();
        let device = probe(0x30, 0x31);
        devices.add_port_dev(device.clone()).unwrap();
        assert_eq!(devices.iter_port_dev().count(), 3);
        // The last item of `iter_mut` is replaced, and put back into the tables by `current`.
        *devices.iter_mut_port_dev().last().unwrap() = probe(0x40, 0x41);
        assert_eq!(devices.iter_port_dev().count(), 3);
        // Once more, so that nothing remembers the first device.
        devices.iter_mut_port_dev().for_each(drop);
        assert_eq!(Arc::strong_count(&device), 1);
    }
}
