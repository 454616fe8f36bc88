//! [`Loose`]: the devices that `iter_mut_*` has lent out, and how they get back into the tables.

use alloc::vec::Vec;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;

use crate::{
    bus::{BusRange, Family, PerBus},
    device::{DeviceBound, DeviceId},
    error::Refusal,
    limited_log::LimitedLog,
    registry::VmDevices,
    span::Span,
    sync::Arc,
    table::{Entry, Mount, Table, reserve},
    tables::{Edit, Tables},
};

impl<B: DeviceBound> VmDevices<B> {
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
        self.tables.reclaim();
        self.ledgers.give_back();
    }

    /// Whether `tables` were stale and the current ones no longer are.
    #[inline]
    pub(crate) fn settled(&self, tables: &Tables<B>) -> bool {
        tables.stale && self.settle().is_ok()
    }

    /// Publishes tables of the devices that `iter_mut_*` has lent out, if there are any.
    ///
    /// This may be in a dispatch, so nothing is freed but what was made here.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]; the tables are as they were.
    pub(crate) fn settle(&self) -> Result<(), Refusal> {
        if !self.tables.load().stale {
            return Ok(());
        }
        let edits = self.loose.edits(&self.refusals)?;
        let published = self.tables.rcu(|tables| match tables.stale {
            true => (Tables::new().edited(&edits))
                .map(|edited| edited.tables)
                .map_err(Some),
            false => Err(None),
        });
        match published {
            Err(Some(refusal)) => Err(refusal),
            Ok(()) | Err(None) => Ok(()),
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

/// Which version of the devices to put back.
#[derive(Clone, Copy)]
enum Version {
    /// As they were when they were lent out.
    Before,
    /// As they are.
    Now,
}

impl<B: DeviceBound> Loose<B> {
    pub(crate) const fn new() -> Self {
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

    /// What makes tables of the devices as they are or, where their ranges do not fit together, as
    /// they were.
    fn edits(&self, refusals: &LimitedLog) -> Result<Vec<Edit<B>>, Refusal> {
        let now = self.edits_to(Version::Now);
        match now.and_then(|edits| Tables::new().edited(&edits).map(|_| edits)) {
            Err(refusal) if refusal != Refusal::NoMemory => {
                refusals.error(format_args!(
                    "devices are put back as they were, for {refusal}"
                ));
                self.edits_to(Version::Before)
            }
            edits => edits,
        }
    }

    fn edits_to(&self, version: Version) -> Result<Vec<Edit<B>>, Refusal> {
        let mut edits = Vec::new();
        list::<B, GuestPhysAddrRange>(&self.0.mmio, version, &mut edits)?;
        list::<B, SysRegAddrRange>(&self.0.sys_reg, version, &mut edits)?;
        list::<B, PortRange>(&self.0.port, version, &mut edits)?;
        Ok(edits)
    }
}

/// Appends what puts the devices of one bus back.
fn list<B: DeviceBound, R: BusRange>(
    places: &[Place<B::Dev<R>>],
    version: Version,
    edits: &mut Vec<Edit<B>>,
) -> Result<(), Refusal> {
    for place in places {
        let (span, mount) = match version {
            Version::Now if !place.is_unchanged() => (
                place.device.address_range().span()?,
                place.mount_among(places),
            ),
            Version::Now | Version::Before => (place.span, place.mount.clone()),
        };
        let entry = Entry::new(span, place.id, place.name.clone(), mount);
        reserve(edits, 1)?;
        edits.push(Edit::Add(R::on(entry)));
    }
    Ok(())
}

impl<D: ?Sized> Place<D> {
    /// Whether the device that was there is there.
    fn is_unchanged(&self) -> bool {
        Arc::ptr_eq(&self.device, &self.mount.device)
    }

    /// How the device that is there now is called: as where it came from, or directly.
    fn mount_among(&self, places: &[Self]) -> Mount<D> {
        let from = places
            .iter()
            .find(|from| Arc::ptr_eq(&self.device, &from.mount.device));
        from.map_or_else(
            || Mount::bare(self.device.clone()),
            |from| from.mount.clone(),
        )
    }
}

fn places<D: ?Sized>(table: &Table<D>) -> Vec<Place<D>> {
    let entries = table.by_registration().into_iter();
    let places = entries.map(|(span, of)| Place {
        id: of.id,
        name: of.name.clone(),
        span,
        mount: Mount {
            device: of.device().clone(),
            handler: of.handler.clone(),
        },
        device: of.device().clone(),
    });
    places.collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

    use axaddrspace::device::{AccessWidth, Port};

    use super::*;
    use crate::{
        device::Unbound, registry::AxVmDevices, testing::Probe, unmapped::Unmapped, update::Batch,
    };

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

    #[test]
    fn a_device_keeps_its_lock_wherever_it_moves() {
        let mut devices = devices();
        let mut batch = Batch::new(&devices.ids, None);
        for first in [0x20, 0x30] {
            let probe = Probe::new(PortRange::new(Port(first), Port(first + 1)));
            batch.mount(Unbound::serialised(probe, ())).unwrap();
        }
        let batched = |tables: &Tables<_>| tables.edited(batch.edits()).map(|edited| edited.tables);
        devices.tables.rcu(batched).unwrap();
        let gated = |devices: &AxVmDevices| {
            let tables = devices.current();
            let entries = tables.of::<PortRange>().entries();
            entries
                .filter(|(_, of)| !Arc::ptr_eq(&of.handler, of.device()))
                .count()
        };
        assert_eq!(gated(&devices), 2);
        let mut items: Vec<_> = devices.iter_mut_port_dev().collect();
        items.reverse();
        let (last, rest) = items.split_first_mut().unwrap();
        core::mem::swap(*last, rest[0]);
        assert_eq!(gated(&devices), 2);
    }

    #[test]
    fn a_device_that_stays_is_not_asked_for_its_range() {
        let mut devices = devices();
        let fickle = Arc::new(Fickle::default());
        devices.add_port_dev(fickle.clone()).unwrap();
        devices.iter_mut_mmio_dev().for_each(drop);
        assert!(devices.find_port_dev(Port(0x50)).is_some());
        assert_eq!(fickle.0.load(Relaxed), 1);
    }

    /// A device whose range is elsewhere each time that it is asked for.
    #[derive(Default)]
    struct Fickle(AtomicU16);

    impl BaseDeviceOps<PortRange> for Fickle {
        fn emu_type(&self) -> axvmconfig::EmulatedDeviceType {
            axvmconfig::EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> PortRange {
            let port = Port(0x50 + self.0.fetch_add(1, Relaxed));
            PortRange::new(port, port)
        }

        fn handle_read(&self, _: Port, _: AccessWidth) -> ax_errno::AxResult<usize> {
            Ok(0)
        }

        fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> ax_errno::AxResult {
            Ok(())
        }
    }
}
