//! Lookups that outlast the table that they were made in: `find_*` and `iter_*`.

use alloc::vec::Vec;

use crate::{
    bus::{BusAddr, BusRange, sealed::Bus},
    device::DeviceBound,
    publish::Guard,
    registry::VmDevices,
    sync::Arc,
    tables::Tables,
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
        let owner = tables.of::<A::Range>().owner(A::Range::number(addr))?;
        Some(owner.device().clone())
    }

    pub(crate) fn iter<R: BusRange>(&self) -> impl Iterator<Item = &Arc<B::Dev<R>>> {
        let tables = self.current();
        let ledger = R::of(&self.ledgers);
        let entries = tables.of::<R>().by_registration().into_iter();
        let lent: Vec<_> = entries.map(|(_, of)| ledger.lend(&of.loan)).collect();
        lent.into_iter()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::device::{Port, PortRange};

    use super::*;
    use crate::{registry::AxVmDevices, span::Span, testing::Probe};

    fn add(devices: &AxVmDevices, first: usize) {
        let span = Span::new(first, first + 1).unwrap();
        devices.add_port_dev(Probe::shared(span)).unwrap();
    }

    #[test]
    fn what_iter_lent_lives_while_the_registry_is_borrowed() {
        let devices = AxVmDevices::default();
        add(&devices, 8);
        add(&devices, 0);
        let lent: Vec<_> = devices.iter_port_dev().collect();
        add(&devices, 2);
        let starts = lent.iter().map(|device| device.address_range().start.0);
        assert!(starts.eq([8, 0]));
        assert_eq!(devices.iter_port_dev().count(), 3);
    }

    #[test]
    fn what_find_gave_is_the_device_itself() {
        let devices = AxVmDevices::default();
        add(&devices, 8);
        let found = devices.find(Port(9)).unwrap();
        let range: PortRange = found.address_range();
        assert_eq!((range.start, range.end), (Port(8), Port(9)));
        assert!(devices.find(Port(7)).is_none() && devices.find(Port(10)).is_none());
        assert!(Arc::ptr_eq(&found, devices.iter_port_dev().next().unwrap()));
    }
}
