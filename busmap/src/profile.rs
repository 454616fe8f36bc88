//! [`Profile`]: which devices the accesses of one vCPU or of many were for, and which addresses they
//! missed.

use alloc::vec::Vec;
use core::fmt;

use crate::{accesses::Accesses, bus::BusId, device::DeviceId, missed::Missed, tallies::Tallies};

/// Which devices the accesses of one vCPU or of many were for, and which addresses they missed: what
/// [`Vcpu::profile`](crate::Vcpu::profile) gives, [merged](Self::merge).
///
/// Plain data. `Display` prints it with the devices' ids, and what [`named`](Self::named) gives with
/// their names:
///
/// ```text
/// device  reads  writes  share
/// #2       9120      13  91.3%  uart
/// #1        100       0   1.0%  rtc
/// missed                  7.7%
///
/// missed  at least  at most  address
/// mmio         700      700  0xfee00000
/// port          65       70  0x80
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
/// let names = |id| registry.view(|view| Some(*view.device(id)?.device().tag()));
/// let table = profile.named(|id| names(id).unwrap_or("(removed)")).to_string();
/// assert!(table.contains("#1          4       0  66.6%  rtc\n"));
/// # Ok::<(), busmap::Refused<Reads>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// The devices that were accessed, the most often accessed first, of equals the one that was
    /// registered first.
    ///
    /// A removed device is among them until the handle calls another one that has taken its
    /// [index](crate::Hit::index); see [`removed`](Self::removed).
    pub devices: Vec<DeviceProfile>,
    /// Accesses to devices that were added when the handle had no more room to count each by itself.
    /// [`Vcpu::refresh`](crate::Vcpu::refresh) makes room for all that there are and 64 more.
    pub others: Accesses,
    /// Accesses to devices that were removed, and whose [index](crate::Hit::index) another device that
    /// the handle has called has taken since.
    pub removed: Accesses,
    /// What was missed in guest physical memory.
    pub mmio: Missed,
    /// What was missed in ports.
    pub port: Missed,
    /// What was missed in system registers.
    pub sys_reg: Missed,
}

/// How often a device was accessed, on all buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceProfile {
    /// The device's id.
    pub id: DeviceId,
    /// How often it was read and written.
    pub accesses: Accesses,
}

impl Profile {
    /// The profile of one handle, and what it has missed in memory, ports and system registers.
    pub(crate) fn of(tallies: &Tallies, [mmio, port, sys_reg]: [Missed; 3]) -> Self {
        let devices = tallies.devices();
        let mut profile = Self {
            devices: devices
                .map(|(id, accesses)| DeviceProfile { id, accesses })
                .collect(),
            others: tallies.others(),
            removed: tallies.removed(),
            mmio,
            port,
            sys_reg,
        };
        profile.sort();
        profile
    }

    /// Adds another profile, such as that of another vCPU.
    ///
    /// A device that is removed may be listed by one and counted as [`removed`](Self::removed) by
    /// the other: it is both then.
    pub fn merge(&mut self, other: &Self) {
        self.devices.extend_from_slice(&other.devices);
        self.devices.sort_unstable_by_key(|of| of.id);
        self.devices.dedup_by(|next, kept| {
            let is_same = next.id == kept.id;
            if is_same {
                kept.accesses = kept.accesses.plus(next.accesses);
            }
            is_same
        });
        self.sort();
        self.others = self.others.plus(other.others);
        self.removed = self.removed.plus(other.removed);
        self.mmio.merge(&other.mmio);
        self.port.merge(&other.port);
        self.sys_reg.merge(&other.sys_reg);
    }

    /// Puts the most often accessed device first.
    fn sort(&mut self) {
        let most_first = |of: &DeviceProfile| (u64::MAX - of.accesses.total(), of.id);
        self.devices.sort_unstable_by_key(most_first);
    }

    /// The accesses that a device has answered.
    pub fn answered(&self) -> Accesses {
        let devices = self.devices.iter().map(|of| of.accesses);
        let rest = self.others.plus(self.removed);
        devices.fold(rest, Accesses::plus)
    }

    /// What was missed on a bus.
    pub fn missed(&self, bus: BusId) -> &Missed {
        match bus {
            BusId::Mmio => &self.mmio,
            BusId::Port => &self.port,
            BusId::SysReg => &self.sys_reg,
        }
    }

    /// The same, to be printed with the names that `name` gives to the devices.
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
        let answered = self.answered();
        let buses = [&self.mmio, &self.port, &self.sys_reg];
        let missed = buses.map(|missed| missed.total).into_iter();
        let missed = missed.fold(0, u64::saturating_add);
        let all = answered.total().saturating_add(missed);
        let first =
            (self.devices.iter()).fold(7, |width, of| width.max(digits(of.id.number()) + 1));
        let (reads, writes) = (
            digits(answered.reads).max(5),
            digits(answered.writes).max(6),
        );

        let (device, share) = ("device", "share");
        writeln!(
            f,
            "{device:first$}  {:>reads$}  {:>writes$}  {share:>6}",
            "reads", "writes"
        )?;
        for DeviceProfile { id, accesses } in &self.devices {
            let (share, name) = (Share(accesses.total(), all), name(*id));
            let Accesses {
                reads: r,
                writes: w,
            } = accesses;
            writeln!(
                f,
                "#{:<1$}  {r:>reads$}  {w:>writes$}  {share}  {name}",
                id.number(),
                first - 1
            )?;
        }
        for (what, accesses) in [("others", self.others), ("removed", self.removed)] {
            let Accesses {
                reads: r,
                writes: w,
            } = accesses;
            if accesses.total() > 0 {
                let share = Share(accesses.total(), all);
                writeln!(f, "{what:first$}  {r:>reads$}  {w:>writes$}  {share}")?;
            }
        }
        if missed > 0 {
            let share = Share(missed, all);
            writeln!(
                f,
                "{:first$}  {:reads$}  {:writes$}  {share}",
                "missed", "", ""
            )?;
        }
        Ok(())
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

/// A part of a whole, in percent.
struct Share(u64, u64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(part, whole) = *self;
        let tenths = u128::from(part) * 1_000 / u128::from(whole.max(1));
        write!(f, "{:>3}.{}%", tenths / 10, tenths % 10)
    }
}

/// How many digits a number has.
fn digits(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |log| log as usize + 1)
}
