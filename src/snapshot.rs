//! [`Snapshot`]: a copy of all tables for the caller to keep.

use alloc::vec::Vec;
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use busmap::{BusId, DeviceId, Span, View};

use crate::{
    bus::{BusRange, DeviceBound, Entry},
    registry::VmDevices,
    sync::Arc,
};

impl<B: DeviceBound> VmDevices<B> {
    /// A copy of all three tables as they are at one instant.
    pub fn snapshot(&self) -> Snapshot<B> {
        self.devices.visible().view(|view| {
            let mut rows = Vec::new();
            list::<GuestPhysAddrRange, B>(view, &mut rows);
            list::<SysRegAddrRange, B>(view, &mut rows);
            list::<PortRange, B>(view, &mut rows);
            Snapshot(rows)
        })
    }
}

/// The devices of all three buses at one instant.
///
/// A copy: what is published later does not change it, and keeping it delays nothing but the drop
/// of the devices in it. `Display` prints a memory map, one line a device, by bus and address:
///
/// ```text
/// mmio     0x8000000..=0x800ffff #1 gicd
/// port     0x3f8..=0x3ff #2
/// ```
pub struct Snapshot<B: DeviceBound>(Vec<Row<B>>);

struct Row<B: DeviceBound> {
    bus: BusId,
    id: DeviceId,
    span: Span,
    entry: Arc<Entry<B>>,
}

/// Appends the rows of one bus, by address.
fn list<R: BusRange, B: DeviceBound>(view: View<'_, B::Handlers>, rows: &mut Vec<Row<B>>) {
    rows.extend(view.spans::<R::Bus>().map(|hit| Row {
        bus: R::ID,
        id: hit.id(),
        span: hit.span(),
        entry: hit.tag().clone(),
    }));
}

impl<B: DeviceBound> Snapshot<B> {
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
        let rows = self.0.iter();
        rows.filter_map(|row| {
            let device = R::of(&row.entry.device)?;
            Some((row.id, R::from_span(row.span), device))
        })
    }
}

impl<B: DeviceBound> fmt::Display for Snapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            write!(f, "{:<8} {} {}", row.bus, row.span, row.id)?;
            match &row.entry.name {
                Some(name) => writeln!(f, " {name}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
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
    use crate::{registry::AxVmDevices, testing::Echo};

    #[test]
    fn lists_by_bus_and_address_with_typed_ranges() {
        let devices = AxVmDevices::default();
        let span = |first, last| Span::new(first, last).unwrap();
        devices
            .add_port_dev(Echo::shared(span(0x60, 0x64)))
            .unwrap();
        devices
            .add_mmio_dev(Echo::shared(span(0x2000, 0x2fff)))
            .unwrap();
        devices
            .add_mmio_dev(Echo::shared(span(0x1000, 0x1fff)))
            .unwrap();
        devices.add_sys_reg_dev(Echo::shared(span(7, 7))).unwrap();
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
        assert_eq!(id.number(), 1);
        assert_eq!(device.address_range().end.0, 0x64);
    }

    #[test]
    fn does_not_keep_a_removed_device_in_use() {
        let devices = AxVmDevices::default();
        let span = Span::new(0, 1).unwrap();
        let id = devices.add_port_dev(Echo::shared(span)).unwrap();
        let snapshot = devices.snapshot();
        assert!(devices.remove(id).unwrap().is_quiescent());
        assert_eq!(
            (snapshot.port().count(), devices.snapshot().port().count()),
            (1, 0)
        );
    }
}
