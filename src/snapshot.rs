//! [`Snapshot`]: a copy of all tables for the caller to keep.

use alloc::vec::Vec;
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use busmap::{BusId, DeviceId, Span, View};

use crate::{
    bus::{BusRange, DeviceBound, Entry, sealed::Bus as _},
    registry::VmDevices,
    sync::Arc,
};

impl<B: DeviceBound> VmDevices<B> {
    /// Returns a copy of all three tables at one instant, and the IVC range.
    pub fn snapshot(&self) -> Snapshot<B> {
        let ivc = self.ivc.as_ref().map(|ivc| (ivc.range, ivc.name.clone()));
        let rows = self.devices.visible().view(|view| {
            let mut rows = Vec::new();
            list::<GuestPhysAddrRange, B>(view, &mut rows);
            list::<SysRegAddrRange, B>(view, &mut rows);
            list::<PortRange, B>(view, &mut rows);
            rows
        });
        Snapshot { rows, ivc }
    }
}

/// The devices of all three buses at one instant.
///
/// A copy: later changes do not affect it. It keeps its devices alive, but does not prevent a removed one from becoming
/// quiescent. `Display` prints a memory map by bus and address. It has one line for each range of a device, with the
/// name from the configuration if there is one, and one line for the IVC range:
///
/// ```text
/// mmio     0x8000000..=0x800ffff #1 gicd
/// ivc      0x70000000..=0x700fffff shared
/// port     0x3f8..=0x3ff #2
/// ```
pub struct Snapshot<B: DeviceBound> {
    rows: Vec<Row<B>>,
    ivc: Option<(Span, Arc<str>)>,
}

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

    /// The range of guest physical memory (half-open) that is set aside for IVC channels. No MMIO
    /// device owns any of it.
    pub fn ivc(&self) -> Option<GuestPhysAddrRange> {
        let (range, _) = self.ivc.as_ref()?;
        Some(GuestPhysAddrRange::from_span(*range))
    }

    fn iter<R: BusRange>(&self) -> impl Iterator<Item = (DeviceId, R, &Arc<B::Dev<R>>)> {
        let rows = self.rows.iter();
        rows.filter_map(|row| {
            let device = R::of(&row.entry.device)?;
            Some((row.id, R::from_span(row.span), device))
        })
    }
}

impl<B: DeviceBound> fmt::Display for Snapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ivc = self.ivc.as_ref();
        for row in &self.rows {
            let comes_first = |(range, _): &mut &(Span, Arc<str>)| {
                row.bus != BusId::Mmio || range.first() < row.span.first()
            };
            if let Some((range, name)) = ivc.take_if(comes_first) {
                show_ivc(f, *range, name)?;
            }
            write!(f, "{:<8} {} {}", row.bus, row.span, row.id)?;
            match &row.entry.name {
                Some(name) => writeln!(f, " {name}")?,
                None => writeln!(f)?,
            }
        }
        ivc.map_or(Ok(()), |(range, name)| show_ivc(f, *range, name))
    }
}

fn show_ivc(f: &mut fmt::Formatter<'_>, range: Span, name: &str) -> fmt::Result {
    let bus = "ivc";
    writeln!(f, "{bus:<8} {range} {name}")
}

impl<B: DeviceBound> fmt::Debug for Snapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot {{\n{self}}}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        bus::{Device, Unbound},
        registry::AxVmDevices,
        testing::{Echo, first_id},
    };

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
    fn lists_the_ivc_range_where_it_lies() {
        let ivc = Span::new(0x2000, 0x2fff).unwrap();
        let map = |devices: &[(u64, u64)]| {
            let mut rows: Vec<_> = (devices.iter())
                .map(|&(first, last)| Row::<Unbound> {
                    bus: BusId::Mmio,
                    id: first_id(),
                    span: Span::new(first, last).unwrap(),
                    entry: Entry::new(None, Device::<Unbound>::Mmio(Echo::shared(ivc))),
                })
                .collect();
            rows.push(Row {
                bus: BusId::Port,
                id: first_id(),
                span: Span::new(0, 7).unwrap(),
                entry: Entry::new(None, Device::<Unbound>::Port(Echo::shared(ivc))),
            });
            let ivc = Some((ivc, "shared".into()));
            let snapshot = Snapshot { rows, ivc };
            let range = GuestPhysAddrRange::from_start_size(0x2000.into(), 0x1000);
            assert_eq!(snapshot.ivc(), Some(range));
            assert_eq!(snapshot.mmio().count(), devices.len());
            let words = snapshot.to_string();
            let buses: Vec<_> = words.lines().map(|line| line[..4].to_string()).collect();
            assert!(words.contains("ivc      0x2000..=0x2fff shared\n"));
            buses.join(" ")
        };
        let (below, above) = ((0, 0xfff), (0x3000, 0x3fff));
        assert_eq!(map(&[]), "ivc  port");
        assert_eq!(map(&[below]), "mmio ivc  port");
        assert_eq!(map(&[above]), "ivc  mmio port");
        assert_eq!(map(&[below, above]), "mmio ivc  mmio port");
        assert_eq!(AxVmDevices::default().snapshot().ivc(), None);
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
