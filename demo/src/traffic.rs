//! The devices that the guests access, and the addresses that they miss, as rows of a report.

use std::fmt;

use axdevice::{Accesses, BusId, Profile, ProfileRow, Span};

use crate::{names::name_at, vm::Vm};

/// The accesses of the guests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// The registered devices, the most accessed first; all removed ones share one row.
    pub(crate) devices: Vec<Accessed>,
    /// The most missed addresses, the most missed first.
    pub(crate) missed: Vec<Missing>,
}

/// A device and the number of its accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accessed {
    pub(crate) name: String,
    pub(crate) range: String,
    pub(crate) accesses: Accesses,
}

/// An address that no device owns, and an upper bound of its accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) bus: BusId,
    pub(crate) address: u64,
    pub(crate) count: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}", self.bus, self.address)
    }
}

impl Traffic {
    /// The traffic of `profile`, with the current names and ranges of the devices of `vm`.
    pub(crate) fn of(vm: &Vm, profile: &Profile) -> Self {
        let table = vm.devices.profile_table(profile);
        let present = table.rows().filter(|row| row.is_registered);
        let mut devices: Vec<_> = present.map(accessed).collect();
        let gone = table.rows().filter(|row| !row.is_registered);
        let gone = gone.map(|row| row.accesses);
        let gone = gone.fold(profile.removed, sum);
        let rest = [("removed devices", gone), ("new devices", profile.others)];
        devices.extend(rest.map(|(name, accesses)| Accessed {
            name: name.into(),
            range: String::new(),
            accesses,
        }));
        devices.retain(|of| of.accesses.total() > 0);
        devices.sort_by_key(|of| u64::MAX - of.accesses.total());
        Self {
            devices,
            missed: missed(profile),
        }
    }
}

fn accessed(row: &ProfileRow) -> Accessed {
    let first = row.ranges.first();
    let range = |(bus, span): &(BusId, Span)| format!("{bus} {span}");
    Accessed {
        name: first.map_or_else(String::new, |(bus, span)| name_at(*bus, span.first())),
        range: first.map_or_else(String::new, range),
        accesses: row.accesses,
    }
}

fn sum(one: Accesses, other: Accesses) -> Accesses {
    Accesses {
        reads: one.reads + other.reads,
        writes: one.writes + other.writes,
    }
}

fn missed(profile: &Profile) -> Vec<Missing> {
    let buses = [BusId::Mmio, BusId::Port];
    let on = |bus: BusId| {
        let addresses = profile.missed(bus).addresses.iter();
        addresses.map(move |of| Missing {
            bus,
            address: of.address,
            count: of.count,
        })
    };
    let mut missed: Vec<_> = buses.into_iter().flat_map(on).collect();
    missed.sort_by_key(|of| u64::MAX - of.count);
    missed
}

#[cfg(test)]
mod tests {
    use axdevice::{AccessWidth, GuestPhysAddr, Port};

    use super::*;
    use crate::contract::{Belt, MMIO_LATCH, MMIO_UNMAPPED, UART_LSR};

    #[test]
    fn devices_have_names_and_removed_ones_are_one() {
        let vm = Vm::new(1, None).unwrap();
        let mut handle = vm.devices.dispatcher();
        let mut read = |address: u32, times| {
            for _ in 0..times {
                let address = GuestPhysAddr::from_usize(address as usize);
                handle
                    .handle_mmio_read(address, AccessWidth::Dword)
                    .unwrap();
            }
        };
        read(MMIO_LATCH, 5);
        read(MMIO_UNMAPPED, 4);
        for number in 1..=2 {
            let card = vm.card(Belt::Loose, number, false);
            let id = vm.devices.add_mmio_dev(card).unwrap();
            read(Belt::Loose.bay(0), 1);
            let _gone = vm.devices.remove(id).unwrap();
        }
        handle
            .handle_port_read(Port(UART_LSR), AccessWidth::Byte)
            .unwrap();

        let traffic = Traffic::of(&vm, &handle.profile());
        let rows: Vec<_> = traffic
            .devices
            .iter()
            .map(|of| (of.name.as_str(), of.range.as_str(), of.accesses.reads))
            .collect();
        let expected = [
            ("MMIO latch", "mmio 0xc0000000..=0xc0000003", 5),
            ("removed devices", "", 2),
            ("UART", "port 0x3f8..=0x3ff", 1),
        ];
        assert_eq!(rows, expected);
        let missing = Missing {
            bus: BusId::Mmio,
            address: MMIO_UNMAPPED.into(),
            count: 4,
        };
        assert_eq!(traffic.missed, [missing]);
    }
}
