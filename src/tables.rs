//! [`Tables`]: the tables of all three buses, which are published and replaced as one.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    bus::{BusRange, Family, OnBus, PerBus},
    device::{Device, DeviceBound, DeviceId},
    error::Refusal,
    span::Span,
    table::{Entry, Table, reserve},
};

/// What is published: one consistent set of tables. Pure data.
pub(crate) struct Tables<B: DeviceBound> {
    buses: PerBus<TableOf<B>>,
    /// Whether these tables merely stand in, empty, for devices lent out by `iter_mut_*`.
    pub(crate) stale: bool,
}

/// The family of tables.
pub(crate) struct TableOf<B>(B);

impl<B: DeviceBound> Family for TableOf<B> {
    type Of<R: BusRange> = Table<B::Dev<R>>;
}

/// The family of table entries.
pub(crate) struct EntryOf<B>(B);

impl<B: DeviceBound> Family for EntryOf<B> {
    type Of<R: BusRange> = Entry<B::Dev<R>>;
}

/// The family of spans.
pub(crate) struct SpanOf;

impl Family for SpanOf {
    type Of<R: BusRange> = Span;
}

/// A step of a change.
pub(crate) enum Edit<B: DeviceBound> {
    Add(OnBus<EntryOf<B>>),
    Remove(DeviceId),
    Move(DeviceId, OnBus<SpanOf>),
}

/// What a change comes to.
pub(crate) struct Edited<B: DeviceBound> {
    pub(crate) tables: Tables<B>,
    /// What was removed, in the order of the removals.
    pub(crate) removed: Vec<OnBus<EntryOf<B>>>,
}

impl<B: DeviceBound> Tables<B> {
    pub(crate) const fn new() -> Self {
        Self {
            buses: PerBus {
                mmio: Table::new(),
                sys_reg: Table::new(),
                port: Table::new(),
            },
            stale: false,
        }
    }

    /// Empty tables that stand in for devices lent out.
    pub(crate) fn stale() -> Self {
        Self {
            stale: true,
            ..Self::new()
        }
    }

    /// The table of the bus with range type `R`.
    #[inline]
    pub(crate) fn of<R: BusRange>(&self) -> &Table<B::Dev<R>> {
        R::of(&self.buses)
    }

    /// A device, if it is here.
    pub(crate) fn device(&self, id: DeviceId) -> Option<Device<B>> {
        let PerBus {
            mmio,
            sys_reg,
            port,
        } = &self.buses;
        (mmio.of(id).map(|of| Device::Mmio(of.device().clone())))
            .or_else(|| Some(Device::SysReg(sys_reg.of(id)?.device().clone())))
            .or_else(|| Some(Device::Port(port.of(id)?.device().clone())))
    }

    /// The name of a device, if it is here and has one.
    pub(crate) fn name(&self, id: DeviceId) -> Option<&str> {
        let PerBus {
            mmio,
            sys_reg,
            port,
        } = &self.buses;
        (mmio.of(id).map(|of| &of.name))
            .or_else(|| Some(&sys_reg.of(id)?.name))
            .or_else(|| Some(&port.of(id)?.name))?
            .as_deref()
    }

    /// A copy with all of `edits` made in their order, or none of them.
    ///
    /// # Errors
    ///
    /// Why the first that cannot be made was refused.
    pub(crate) fn edited(&self, edits: &[Edit<B>]) -> Result<Edited<B>, Refusal> {
        let adds = |on: fn(&Edit<B>) -> bool| edits.iter().filter(|&edit| on(edit)).count();
        let PerBus {
            mmio,
            sys_reg,
            port,
        } = &self.buses;
        let mut edited = Edited {
            tables: Self {
                buses: PerBus {
                    mmio: mmio.try_clone(adds(|e| matches!(e, Edit::Add(OnBus::Mmio(_)))))?,
                    sys_reg: sys_reg
                        .try_clone(adds(|e| matches!(e, Edit::Add(OnBus::SysReg(_)))))?,
                    port: port.try_clone(adds(|e| matches!(e, Edit::Add(OnBus::Port(_)))))?,
                },
                stale: false,
            },
            removed: Vec::new(),
        };
        edits.iter().try_for_each(|edit| edited.make(edit))?;
        Ok(edited)
    }

    /// Takes a device out, whatever its bus.
    fn take(&mut self, id: DeviceId) -> Option<OnBus<EntryOf<B>>> {
        let PerBus {
            mmio,
            sys_reg,
            port,
        } = &mut self.buses;
        (mmio.remove(id).map(OnBus::Mmio))
            .or_else(|| sys_reg.remove(id).map(OnBus::SysReg))
            .or_else(|| port.remove(id).map(OnBus::Port))
    }
}

impl<B: DeviceBound> Edited<B> {
    /// Makes one more step.
    fn make(&mut self, edit: &Edit<B>) -> Result<(), Refusal> {
        let buses = &mut self.tables.buses;
        match edit {
            Edit::Add(OnBus::Mmio(entry)) => buses.mmio.insert(entry.clone()),
            Edit::Add(OnBus::SysReg(entry)) => buses.sys_reg.insert(entry.clone()),
            Edit::Add(OnBus::Port(entry)) => buses.port.insert(entry.clone()),
            Edit::Move(id, OnBus::Mmio(span)) => buses.mmio.relocate(*id, *span),
            Edit::Move(id, OnBus::SysReg(span)) => buses.sys_reg.relocate(*id, *span),
            Edit::Move(id, OnBus::Port(span)) => buses.port.relocate(*id, *span),
            Edit::Remove(id) => {
                let entry = self.tables.take(*id).ok_or(Refusal::Unknown { id: *id })?;
                reserve(&mut self.removed, 1)?;
                self.removed.push(entry);
                Ok(())
            }
        }
    }
}

impl<B: DeviceBound> fmt::Debug for Tables<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("mmio", &self.buses.mmio)
            .field("sys_reg", &self.buses.sys_reg)
            .field("port", &self.buses.port)
            .field("stale", &self.stale)
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::{
        GuestPhysAddrRange,
        device::{PortRange, SysRegAddrRange},
    };

    use super::*;
    use crate::{device::Unbound, span::Span, table::Mount, testing::Probe};

    fn add<R: BusRange>(id: u64, first: usize, last: usize) -> Edit<Unbound> {
        let span = Span::new(first, last).unwrap();
        let mount = Mount::bare(Probe::<R>::shared(span) as _);
        Edit::Add(R::on(Entry::new(span, DeviceId::new(id), None, mount)))
    }

    fn owner<R: BusRange>(tables: &Tables<Unbound>, addr: usize) -> Option<DeviceId> {
        tables.of::<R>().owner(addr).map(|owner| owner.id)
    }

    #[test]
    fn buses_do_not_mix() {
        let edits = [
            add::<GuestPhysAddrRange>(1, 0x10, 0x1f),
            add::<PortRange>(2, 0x10, 0x1f),
        ];
        let tables = Tables::new().edited(&edits).unwrap().tables;
        assert_eq!(
            owner::<GuestPhysAddrRange>(&tables, 0x10),
            Some(DeviceId::new(1))
        );
        assert_eq!(owner::<PortRange>(&tables, 0x10), Some(DeviceId::new(2)));
        assert_eq!(owner::<SysRegAddrRange>(&tables, 0x10), None);
    }

    #[test]
    fn a_refused_step_refuses_the_whole_change() {
        let owner = |refusal| match refusal {
            Refusal::Overlap { owner, .. } => owner,
            other => panic!("{other}"),
        };
        let refused = |tables: &Tables<Unbound>, edits: &[Edit<Unbound>]| match tables.edited(edits)
        {
            Err(refusal) => owner(refusal),
            Ok(_) => panic!("it was made"),
        };
        let first = Tables::new().edited(&[add::<PortRange>(1, 0, 7)]);
        let first = first.unwrap().tables;
        let edits = [add::<PortRange>(2, 8, 9), add::<PortRange>(3, 7, 7)];
        assert_eq!(refused(&first, &edits), DeviceId::new(1));
        let edits = [add::<PortRange>(4, 20, 21), add::<PortRange>(5, 21, 22)];
        assert_eq!(refused(&first, &edits), DeviceId::new(4));
        assert_eq!(first.of::<PortRange>().entries().count(), 1);
    }
    #[test]
    fn steps_are_made_in_their_order() {
        let id = DeviceId::new;
        let first = Tables::new().edited(&[add::<PortRange>(1, 0, 7)]);
        let first = first.unwrap().tables;
        let edits = [
            Edit::Move(id(1), OnBus::Port(Span::new(8, 15).unwrap())),
            add::<PortRange>(2, 0, 7),
            add::<GuestPhysAddrRange>(3, 0, 7),
            Edit::Remove(id(1)),
            Edit::Remove(id(3)),
            add::<PortRange>(4, 8, 8),
        ];
        let Edited { tables, removed } = first.edited(&edits).unwrap();
        assert_eq!(owner::<PortRange>(&tables, 0), Some(id(2)));
        assert_eq!(owner::<PortRange>(&tables, 8), Some(id(4)));
        assert_eq!(owner::<GuestPhysAddrRange>(&tables, 0), None);
        assert!(matches!(&removed[..], [OnBus::Port(one), OnBus::Mmio(two)]
            if one.id() == id(1) && two.id() == id(3)));
        // Not so in another order, nor on another bus.
        let unknown = |edits: &[Edit<Unbound>]| first.edited(edits).err();
        let two = Some(Refusal::Unknown { id: id(2) });
        assert_eq!(
            unknown(&[Edit::Remove(id(2)), add::<PortRange>(2, 8, 9)]),
            two
        );
        let one = Some(Refusal::Unknown { id: id(1) });
        let span = Span::new(8, 9).unwrap();
        assert_eq!(unknown(&[Edit::Move(id(1), OnBus::Mmio(span))]), one);
    }
}
