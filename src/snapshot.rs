//! [`Snapshot`]: a copy of all tables for the caller to keep.

use alloc::vec::Vec;
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};

use crate::{
    bus::{BusRange, Family, PerBus},
    device::{DeviceBound, DeviceId},
    span::Span,
    sync::Arc,
    table::Table,
    tables::Tables,
};

/// The devices of all three buses at one instant.
///
/// A copy: what is published later does not change it, and keeping it delays nothing but the drop
/// of the devices in it. `Display` prints a memory map, one line a device, by bus and address:
///
/// ```text
/// mmio     0x8000000..=0x800ffff #1 gicd
/// port     0x3f8..=0x3ff #2
/// ```
pub struct Snapshot<B: DeviceBound>(PerBus<RowsOf<B>>);

/// The family of a snapshot's rows, by address.
struct RowsOf<B>(B);

impl<B: DeviceBound> Family for RowsOf<B> {
    type Of<R: BusRange> = Vec<Row<B::Dev<R>>>;
}

struct Row<D: ?Sized> {
    id: DeviceId,
    span: Span,
    name: Option<Arc<str>>,
    device: Arc<D>,
}

impl<B: DeviceBound> Snapshot<B> {
    pub(crate) fn of(tables: &Tables<B>) -> Self {
        Self(PerBus {
            mmio: rows(tables.of::<GuestPhysAddrRange>()),
            sys_reg: rows(tables.of::<SysRegAddrRange>()),
            port: rows(tables.of::<PortRange>()),
        })
    }

    /// The MMIO devices by address: id, range (half-open), device.
    pub fn mmio(
        &self,
    ) -> impl Iterator<
        Item = (
            DeviceId,
            GuestPhysAddrRange,
            &Arc<B::Dev<GuestPhysAddrRange>>,
        ),
    > {
        self.iter()
    }

    /// The system register devices by address: id, range (inclusive), device.
    pub fn sys_reg(
        &self,
    ) -> impl Iterator<Item = (DeviceId, SysRegAddrRange, &Arc<B::Dev<SysRegAddrRange>>)> {
        self.iter()
    }

    /// The port I/O devices by address: id, range (inclusive), device.
    pub fn port(&self) -> impl Iterator<Item = (DeviceId, PortRange, &Arc<B::Dev<PortRange>>)> {
        self.iter()
    }

    fn iter<R: BusRange>(&self) -> impl Iterator<Item = (DeviceId, R, &Arc<B::Dev<R>>)> {
        let rows = R::of(&self.0).iter();
        rows.map(|row| (row.id, R::from_span(row.span), &row.device))
    }

    fn write_bus<R: BusRange>(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in R::of(&self.0) {
            write!(f, "{:<8} {} {}", R::NAME, row.span, row.id)?;
            match &row.name {
                Some(name) => writeln!(f, " {name}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

fn rows<D: ?Sized>(table: &Table<D>) -> Vec<Row<D>> {
    let rows = table.entries().map(|(span, of)| Row {
        id: of.id,
        span,
        name: of.name.clone(),
        device: of.device().clone(),
    });
    rows.collect()
}

impl<B: DeviceBound> fmt::Display for Snapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_bus::<GuestPhysAddrRange>(f)?;
        self.write_bus::<SysRegAddrRange>(f)?;
        self.write_bus::<PortRange>(f)
    }
}

impl<B: DeviceBound> fmt::Debug for Snapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot {{\n{self}}}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{registry::AxVmDevices, testing::Probe};

    #[test]
    fn lists_by_bus_and_address_with_typed_ranges() {
        let devices = AxVmDevices::default();
        let span = |first, last| Span::new(first, last).unwrap();
        devices
            .add_port_dev(Probe::shared(span(0x60, 0x64)))
            .unwrap();
        devices
            .add_mmio_dev(Probe::shared(span(0x2000, 0x2fff)))
            .unwrap();
        devices
            .add_mmio_dev(Probe::shared(span(0x1000, 0x1fff)))
            .unwrap();
        devices.add_sys_reg_dev(Probe::shared(span(7, 7))).unwrap();
        let snapshot = devices.snapshot();
        let map = "mmio     0x1000..=0x1fff #3\n\
                   mmio     0x2000..=0x2fff #2\n\
                   sys_reg  0x7..=0x7 #4\n\
                   port     0x60..=0x64 #1\n";
        assert_eq!(snapshot.to_string(), map);

        let range = GuestPhysAddrRange::from_start_size(0x1000.into(), 0x1000);
        assert_eq!(snapshot.mmio().next().map(|row| row.1), Some(range));
        assert_eq!(snapshot.sys_reg().count(), 1);
        let (id, _, device) = snapshot.port().next().unwrap();
        assert_eq!(id, DeviceId::new(1));
        assert_eq!(device.address_range().end.0, 0x64);
    }

    #[test]
    fn holds_no_published_table() {
        let devices = AxVmDevices::default();
        devices
            .add_port_dev(Probe::shared(Span::new(0, 1).unwrap()))
            .unwrap();
        let snapshot = devices.snapshot();
        let tables = devices.current();
        let owner = tables.of::<PortRange>().owner(0).unwrap();
        assert_eq!(Arc::strong_count(owner), 1);
        assert_eq!(snapshot.port().count(), 1);
    }
}
