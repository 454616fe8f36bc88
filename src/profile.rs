//! [`ProfileTable`]: a [`Profile`] with the devices' names and ranges, for people.

use alloc::{collections::BTreeMap, vec::Vec};
use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use busmap::{Accesses, BusId, DeviceId, Profile, Span, View};

use crate::{
    bus::{BusRange, DeviceBound},
    registry::VmDevices,
    sync::Arc,
};

impl<B: DeviceBound> VmDevices<B> {
    /// Returns a table of `profile` with the current names and ranges of the devices. The profile may be
    /// [merged](Profile::merge) from several [`Dispatcher`](crate::Dispatcher)s.
    pub fn profile_table(&self, profile: &Profile) -> ProfileTable {
        let rows = profile.devices.iter();
        let mut rows: BTreeMap<_, _> = rows.map(|of| (of.id, ProfileRow::new(of))).collect();
        self.devices.visible().view(|view| {
            for of in view.devices() {
                if let Some(row) = rows.get_mut(&of.id()) {
                    row.is_registered = true;
                    row.name = of.device().tag().name.clone();
                }
            }
            add_ranges::<GuestPhysAddrRange, B>(view, &mut rows);
            add_ranges::<SysRegAddrRange, B>(view, &mut rows);
            add_ranges::<PortRange, B>(view, &mut rows);
        });
        ProfileTable {
            rows,
            profile: profile.clone(),
        }
    }
}

/// Adds the ranges of one bus to the rows of the devices that own them.
fn add_ranges<R: BusRange, B: DeviceBound>(
    view: View<'_, B::Handlers>,
    rows: &mut BTreeMap<DeviceId, ProfileRow>,
) {
    for hit in view.spans::<R::Bus>() {
        if let Some(row) = rows.get_mut(&hit.id()) {
            row.ranges.push((R::ID, hit.span()));
        }
    }
}

/// The numbers of accesses of some vCPUs to each device, with the devices' names, and the addresses that they missed.
///
/// A copy: it does not change with the registry. `Display` prints it, the most often accessed device
/// first, and then the most frequent missed addresses of each bus:
///
/// ```text
/// device   reads  writes   share
/// #2        9120      13   91.3%  com1 port 0x3f8..=0x3ff
/// #1         100       0    1.0%  mmio 0x8000000..=0x800ffff
/// missed                    7.7%
///
/// missed   at least   at most  address
/// mmio          700       700  0xfee00000
/// port           65        70  0x80
/// ```
///
/// The share is of all accesses, including missed ones. With more than 16 missed addresses on a bus, their counts are
/// known only within bounds: see [`Missed`](crate::Missed).
#[derive(Clone, Debug)]
pub struct ProfileTable {
    rows: BTreeMap<DeviceId, ProfileRow>,
    profile: Profile,
}

/// A device in a [`ProfileTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileRow {
    /// The device's id.
    pub id: DeviceId,
    /// The name that the configuration gave.
    pub name: Option<Arc<str>>,
    /// Whether the device was registered when the table was made.
    pub is_registered: bool,
    /// The ranges that it owned then, by bus and address.
    pub ranges: Vec<(BusId, Span)>,
    /// The numbers of reads and writes.
    pub accesses: Accesses,
}

impl ProfileRow {
    fn new(of: &busmap::DeviceProfile) -> Self {
        Self {
            id: of.id,
            name: None,
            is_registered: false,
            ranges: Vec::new(),
            accesses: of.accesses,
        }
    }
}

impl fmt::Display for ProfileRow {
    /// The name and the ranges.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_registered {
            return f.write_str("(removed)");
        }
        let name = self.name.as_deref().unwrap_or_default();
        f.write_str(name)?;
        let mut between = if name.is_empty() { "" } else { " " };
        for (bus, span) in &self.ranges {
            write!(f, "{between}{bus} {span}")?;
            between = ", ";
        }
        Ok(())
    }
}

impl ProfileTable {
    /// The devices that were accessed, the most often accessed first.
    pub fn rows(&self) -> impl Iterator<Item = &ProfileRow> {
        let order = self.profile.devices.iter();
        order.filter_map(|of| self.rows.get(&of.id))
    }

    /// The profile, which also contains the misses and the accesses that are not counted by device.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }
}

impl fmt::Display for ProfileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.profile.named(|id| &self.rows[&id]);
        named.fmt(f)
    }
}
