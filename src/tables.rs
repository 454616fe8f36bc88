//! [`Tables`]: the tables of all three buses, which are published and replaced as one.

use core::fmt;

use crate::{
    bus::{BusRange, Family, OnBus, PerBus},
    device::{DeviceBound, DeviceId},
    error::Refusal,
    table::{Entry, Table},
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

/// A step of a change.
pub(crate) enum Edit<B: DeviceBound> {
    Add(OnBus<EntryOf<B>>),
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

    /// The name of a device, if it is here and has one.
    pub(crate) fn name(&self, id: DeviceId) -> Option<&str> {
        let PerBus {
            mmio,
            sys_reg,
            port,
        } = &self.buses;
        mmio.name(id)
            .or_else(|| sys_reg.name(id))
            .or_else(|| port.name(id))
    }

    /// A copy with all of `edits` made in their order, or none of them.
    ///
    /// # Errors
    ///
    /// Why the first that cannot be made was refused.
    pub(crate) fn edited(&self, edits: &[Edit<B>]) -> Result<Self, Refusal> {
        let adds = |on: fn(&Edit<B>) -> bool| edits.iter().filter(|&edit| on(edit)).count();
        let mut buses = PerBus::<TableOf<B>> {
            mmio: self
                .buses
                .mmio
                .try_clone(adds(|e| matches!(e, Edit::Add(OnBus::Mmio(_)))))?,
            sys_reg: self
                .buses
                .sys_reg
                .try_clone(adds(|e| matches!(e, Edit::Add(OnBus::SysReg(_)))))?,
            port: self
                .buses
                .port
                .try_clone(adds(|e| matches!(e, Edit::Add(OnBus::Port(_)))))?,
        };
        for edit in edits {
            match edit {
                Edit::Add(OnBus::Mmio(entry)) => buses.mmio.insert(entry.clone())?,
                Edit::Add(OnBus::SysReg(entry)) => buses.sys_reg.insert(entry.clone())?,
                Edit::Add(OnBus::Port(entry)) => buses.port.insert(entry.clone())?,
            }
        }
        Ok(Self {
            buses,
            stale: false,
        })
    }
}

impl<B: DeviceBound> fmt::Debug for Tables<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("mmio", &self.buses.mmio.entries())
            .field("sys_reg", &self.buses.sys_reg.entries())
            .field("port", &self.buses.port.entries())
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
        tables.of::<R>().find(addr).map(Entry::id)
    }

    #[test]
    fn buses_do_not_mix() {
        let edits = [
            add::<GuestPhysAddrRange>(1, 0x10, 0x1f),
            add::<PortRange>(2, 0x10, 0x1f),
        ];
        let tables = Tables::new().edited(&edits).unwrap();
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
        let first = Tables::new().edited(&[add::<PortRange>(1, 0, 7)]).unwrap();
        let edits = [add::<PortRange>(2, 8, 9), add::<PortRange>(3, 7, 7)];
        assert_eq!(owner(first.edited(&edits).unwrap_err()), DeviceId::new(1));
        let edits = [add::<PortRange>(4, 20, 21), add::<PortRange>(5, 21, 22)];
        assert_eq!(owner(first.edited(&edits).unwrap_err()), DeviceId::new(4));
        assert_eq!(first.of::<PortRange>().entries().len(), 1);
    }
}
