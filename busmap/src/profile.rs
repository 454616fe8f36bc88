//! [`Profile`]: the accesses of one or more vCPUs by device, and their most frequent missed addresses.

use alloc::{string::ToString, vec::Vec};
use core::fmt;

use crate::{accesses::Accesses, bus::BusId, device::DeviceId, missed::Missed, tallies::Tallies};

/// The accesses of one or more vCPUs by device, and their most frequent missed addresses.
/// [`Vcpu::profile`](crate::Vcpu::profile) returns the profile of one vCPU, and [`merge`](Self::merge) adds another.
///
/// Plain data. `Display` prints it with the devices' ids, and [`named`](Self::named) adds their names:
///
/// ```text
/// device   reads  writes   share
/// #2        9120      13   91.3%  uart
/// #1         100       0    1.0%  rtc
/// missed                    7.7%
///
/// missed   at least   at most  address
/// mmio          700       700  0xfee00000
/// port           65        70  0x80
/// ```
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use busmap::{Device, Direction, Handlers, Port, Profile, Registry, Span};
///
/// enum Reads {}
/// type Read = dyn Fn(u64) -> u8 + Send + Sync;
///
/// impl Handlers for Reads {
///     type Mmio = Read;
///     type Port = Read;
///     type SysReg = Read;
///     type Tag = &'static str;
/// }
///
/// let registry = Registry::<Reads>::new();
/// let rtc = Device::<Reads>::new("rtc").on::<Port>(Arc::new(|_| 0x59));
/// let id = registry.add::<Port>(rtc, Span::new(0x70, 0x71).unwrap())?;
///
/// let mut vcpus = [registry.vcpu(), registry.vcpu()];
/// for vcpu in &mut vcpus {
///     for port in [0x70, 0x71, 0x80] {
///         let _ = vcpu.dispatch::<Port, _>(Direction::Read, port, 0, |hit| hit.handler()(port));
///     }
/// }
///
/// let mut profile = Profile::default();
/// vcpus.iter().for_each(|vcpu| profile.merge(&vcpu.profile()));
/// assert_eq!((profile.devices[0].id, profile.devices[0].accesses.reads), (id, 4));
/// assert_eq!((profile.port.addresses[0].address, profile.port.total), (0x80, 2));
///
/// let table = registry.view(|view| {
///     let name = |id| view.device(id).map_or("(removed)", |of| *of.device().tag());
///     profile.named(name).to_string()
/// });
/// assert_eq!(
///     table,
///     "device   reads  writes   share\n\
///      #1           4       0   66.7%  rtc\n\
///      missed                   33.3%\n\
///      \n\
///      missed   at least   at most  address\n\
///      port            2         2  0x80\n",
/// );
/// # Ok::<(), busmap::Refused<Reads>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The accessed devices, sorted by descending number of accesses, then by the order of registration.
    ///
    /// The list includes removed devices: for each handle at least the 16 that it accessed most often.
    /// [`removed`](Self::removed) counts the rest.
    pub devices: Vec<DeviceProfile>,
    /// Accesses to devices that were added when the handle had no room for a separate count.
    /// [`Vcpu::refresh`](crate::Vcpu::refresh) makes room for all registered devices and 8 more.
    pub others: Accesses,
    /// Accesses to devices that were removed and are not listed.
    pub removed: Accesses,
    /// Misses in guest physical memory.
    pub mmio: Missed,
    /// Misses in ports.
    pub port: Missed,
    /// Misses in system registers.
    pub sys_reg: Missed,
}

/// The number of accesses to a device, on all buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceProfile {
    /// The device's id.
    pub id: DeviceId,
    /// The number of reads and writes.
    pub accesses: Accesses,
}

impl Profile {
    /// The profile of one handle, with its misses in memory, ports and system registers.
    pub(crate) fn of(tallies: &Tallies, [mmio, port, sys_reg]: [Missed; 3]) -> Self {
        let devices = tallies.devices();
        let devices = devices.map(|(id, accesses)| DeviceProfile { id, accesses });
        let mut profile = Self {
            devices: devices.collect(),
            others: tallies.others(),
            removed: tallies.removed(),
            mmio,
            port,
            sys_reg,
        };
        profile.tidy();
        profile
    }

    /// Adds another profile, such as that of another vCPU.
    ///
    /// A removed device may be listed in one profile and counted as [`removed`](Self::removed) in the other. The merged
    /// profile then contains both entries.
    pub fn merge(&mut self, other: &Self) {
        self.devices.extend_from_slice(&other.devices);
        self.tidy();
        self.others = self.others.plus(other.others);
        self.removed = self.removed.plus(other.removed);
        self.mmio.merge(&other.mmio);
        self.port.merge(&other.port);
        self.sys_reg.merge(&other.sys_reg);
    }

    /// Adds up the entries of each device, and puts the most often accessed device first.
    fn tidy(&mut self) {
        self.devices.sort_unstable_by_key(|of| of.id);
        self.devices.dedup_by(|next, kept| {
            let is_same = next.id == kept.id;
            if is_same {
                kept.accesses = kept.accesses.plus(next.accesses);
            }
            is_same
        });
        let most_first = |of: &DeviceProfile| (u64::MAX - of.accesses.total(), of.id);
        self.devices.sort_unstable_by_key(most_first);
    }

    /// The accesses that devices answered.
    pub fn answered(&self) -> Accesses {
        let devices = self.devices.iter().map(|of| of.accesses);
        let rest = self.others.plus(self.removed);
        devices.fold(rest, Accesses::plus)
    }

    /// The misses on a bus.
    pub fn missed(&self, bus: BusId) -> &Missed {
        match bus {
            BusId::Mmio => &self.mmio,
            BusId::Port => &self.port,
            BusId::SysReg => &self.sys_reg,
        }
    }

    /// The profile as text, with the name that `name` returns for each device.
    pub fn named<N: fmt::Display>(&self, name: impl Fn(DeviceId) -> N) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            self.write_devices(f, &name)?;
            self.write_missed(f)
        })
    }

    /// The table of the devices.
    fn write_devices<N: fmt::Display>(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: impl Fn(DeviceId) -> N,
    ) -> fmt::Result {
        let columns = Columns::of(self);
        columns.write_head(f)?;
        for DeviceProfile { id, accesses } in &self.devices {
            columns.write_row(f, &id.to_string(), *accesses)?;
            match name(*id).to_string() {
                name if name.is_empty() => writeln!(f)?,
                name => writeln!(f, "  {name}")?,
            }
        }
        for (what, accesses) in [("others", self.others), ("removed", self.removed)] {
            if accesses.total() > 0 {
                columns.write_row(f, what, accesses)?;
                writeln!(f)?;
            }
        }
        match self.missed_on_all_buses() {
            0 => Ok(()),
            missed => columns.write_missed(f, missed),
        }
    }

    fn missed_on_all_buses(&self) -> u64 {
        let Self {
            mmio,
            port,
            sys_reg,
            ..
        } = self;
        let totals = [mmio, port, sys_reg].map(|missed| missed.total);
        totals.into_iter().fold(0, u64::saturating_add)
    }

    /// The table of the missed addresses, if there are any.
    fn write_missed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buses = [BusId::Mmio, BusId::Port, BusId::SysReg];
        let addresses = |bus| self.missed(bus).addresses.iter();
        let counts = buses
            .iter()
            .flat_map(|&bus| addresses(bus))
            .map(|of| of.count);
        let Some(most) = counts.max() else {
            return Ok(());
        };
        let width = digits(most).max(8);
        writeln!(
            f,
            "\n{:7}  {:>width$}  {:>width$}  address",
            "missed", "at least", "at most"
        )?;
        for bus in buses {
            for of in addresses(bus) {
                let (least, most, address) = (of.at_least(), of.count, of.address);
                writeln!(f, "{bus:7}  {least:>width$}  {most:>width$}  {address:#x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.named(|_| "").fmt(f)
    }
}

/// The widths of the columns of the devices' table, and the total to which the shares refer.
struct Columns {
    device: usize,
    reads: usize,
    writes: usize,
    whole: u64,
}

impl Columns {
    fn of(profile: &Profile) -> Self {
        let answered = profile.answered();
        let missed = profile.missed_on_all_buses();
        let ids = profile.devices.iter().map(|of| digits(of.id.number()) + 1);
        Self {
            device: ids.fold("removed".len(), usize::max),
            reads: digits(answered.reads).max("reads".len()),
            writes: digits(answered.writes).max("writes".len()),
            whole: answered.total().saturating_add(missed),
        }
    }

    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, reads, writes) = ("device", "reads", "writes");
        self.write_columns(f, what, reads, writes)?;
        writeln!(f, "   share")
    }

    /// Writes a row, without the end of the line.
    fn write_row(&self, f: &mut fmt::Formatter<'_>, what: &str, accesses: Accesses) -> fmt::Result {
        self.write_columns(f, what, accesses.reads, accesses.writes)?;
        self.write_share(f, accesses.total())
    }

    /// Writes the row of the missed accesses, whose direction is not known.
    fn write_missed(&self, f: &mut fmt::Formatter<'_>, missed: u64) -> fmt::Result {
        self.write_columns(f, "missed", "", "")?;
        self.write_share(f, missed)?;
        writeln!(f)
    }

    fn write_columns(
        &self,
        f: &mut fmt::Formatter<'_>,
        what: &str,
        reads: impl fmt::Display,
        writes: impl fmt::Display,
    ) -> fmt::Result {
        let Self {
            device: first,
            reads: second,
            writes: third,
            ..
        } = self;
        write!(f, "{what:first$}  {reads:>second$}  {writes:>third$}")
    }

    /// Writes the share of a part in the whole, in percent.
    fn write_share(&self, f: &mut fmt::Formatter<'_>, part: u64) -> fmt::Result {
        let whole = u128::from(self.whole.max(1));
        let tenths = (u128::from(part) * 1_000 + whole / 2) / whole;
        write!(f, "  {:>3}.{}%", tenths / 10, tenths % 10)
    }
}

/// The number of decimal digits of a number.
fn digits(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{device::DeviceIds, missed::MissedAddress, space_saving::SpaceSaving};

    fn accesses(reads: u64, writes: u64) -> Accesses {
        Accesses { reads, writes }
    }

    fn profile(devices: &[(DeviceId, u64, u64)]) -> Profile {
        let mut profile = Profile {
            devices: (devices.iter())
                .map(|&(id, reads, writes)| DeviceProfile {
                    id,
                    accesses: accesses(reads, writes),
                })
                .collect(),
            ..Profile::default()
        };
        profile.tidy();
        profile
    }

    fn listed(profile: &Profile) -> Vec<(DeviceId, u64, u64)> {
        let devices = profile.devices.iter();
        let listed = devices.map(|of| (of.id, of.accesses.reads, of.accesses.writes));
        listed.collect()
    }

    fn missed(addresses: &[u64]) -> Missed {
        let mut sketch = SpaceSaving::new();
        addresses.iter().for_each(|&address| sketch.count(address));
        sketch.list()
    }

    #[test]
    fn merging_adds_by_device_and_sorts_by_total_then_id() {
        let ids = DeviceIds::new();
        let [a, b, c, d] = [(); 4].map(|()| ids.next());
        let mut one = profile(&[(d, 1, 1), (a, 1, 2), (b, 7, 0)]);
        assert_eq!(listed(&one), [(b, 7, 0), (a, 1, 2), (d, 1, 1)]);
        one.others = accesses(1, 2);
        one.mmio = missed(&[5]);
        let mut two = profile(&[(a, 3, 1), (c, 0, 2)]);
        two.removed = accesses(3, 4);
        two.others = accesses(10, 20);
        two.mmio = missed(&[5, 6]);
        two.sys_reg = missed(&[7]);
        one.merge(&two);
        let merged = [(a, 4, 3), (b, 7, 0), (c, 0, 2), (d, 1, 1)];
        assert_eq!(listed(&one), merged);
        assert_eq!(one.others, accesses(11, 22));
        assert_eq!(one.removed, accesses(3, 4));
        assert_eq!(one.answered(), accesses(26, 32));
        let totals = [BusId::Mmio, BusId::Port, BusId::SysReg].map(|bus| one.missed(bus).total);
        assert_eq!(totals, [3, 0, 1]);
        assert_eq!(one.mmio.addresses[0].count, 2);
        let before = one.clone();
        one.merge(&Profile::default());
        assert_eq!(one, before);
    }

    #[test]
    fn prints_aligned_tables() {
        let ids = DeviceIds::new();
        let [a, b] = [(); 2].map(|()| ids.next());
        let mut profile = profile(&[(a, 4, 1), (b, 123_456, 7_654_321)]);
        profile.others = accesses(20_000, 0);
        profile.removed = accesses(0, 1);
        profile.mmio = missed(&[0xfee0_0000; 3]);
        profile.port.total = 5_000_000_000;
        profile.port.addresses.push(MissedAddress {
            address: 0x80,
            count: 5_000_000_000,
            error: 17,
        });
        let name = |id| if id == a { "rtc" } else { "uart" };
        let text = "\
device    reads   writes   share
#2       123456  7654321    0.2%  uart
#1            4        1    0.0%  rtc
others    20000        0    0.0%
removed       0        1    0.0%
missed                     99.8%

missed     at least     at most  address
mmio              3           3  0xfee00000
port     4999999983  5000000000  0x80
";
        assert_eq!(profile.named(name).to_string(), text);
        assert_eq!(
            profile.to_string(),
            text.replace("  uart", "").replace("  rtc", "")
        );
    }

    #[test]
    fn an_empty_profile_prints_only_headings() {
        let head = "device   reads  writes   share\n";
        assert_eq!(Profile::default().to_string(), head);
    }
}
