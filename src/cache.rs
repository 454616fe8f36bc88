//! [`Cache`]: the tables as a vCPU keeps them, and where in them it found its last devices.

use alloc::{boxed::Box, vec};
use core::ptr::NonNull;

use crate::{
    bus::{BusRange, Family, PerBus},
    device::DeviceBound,
    dispatch::Access,
    publish::{Hold, NEVER, SnapshotCell},
    table::Row,
    tables::Tables,
};

/// How many places are remembered for each bus, as a power of two: enough for a thousand devices,
/// and 32 KiB. Under Miri, which is slow to make them, a few.
const BITS: u32 = if cfg!(miri) { 4 } else { 11 };

/// Tables that are held, and the rows of them that accesses were for, by where the accesses were.
///
/// As a processor's TLB, which a change of the tables flushes by their version.
///
/// # Invariants
///
/// *Fresh*: the version of a place is not above that of the hold. If it is the same and not
/// [`Place::EMPTY`]'s, the row is one of the held tables.
pub(crate) struct Cache<B: DeviceBound> {
    hold: Hold<Tables<B>>,
    places: PerBus<PlacesOf<B>>,
}

/// The family of places.
struct PlacesOf<B>(B);

impl<B: DeviceBound> Family for PlacesOf<B> {
    type Of<R: BusRange> = Places<B::Dev<R>>;
}

/// The places of one bus. Any of them may be overwritten for another access: that costs a search.
struct Places<D: ?Sized> {
    places: Box<[Place<D>; 1 << BITS]>,
    /// Whether any is not empty.
    used: bool,
}

/// Which row accesses near an address were for.
struct Place<D: ?Sized> {
    /// That of the hold when the row was found.
    version: u64,
    row: NonNull<Row<D>>,
}

// SAFETY: a place is used as a reference to its row is.
unsafe impl<D: ?Sized> Send for Place<D> where Row<D>: Sync {}

// SAFETY: a place is used as a reference to its row is.
unsafe impl<D: ?Sized> Sync for Place<D> where Row<D>: Sync {}

impl<D: ?Sized> Clone for Place<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: ?Sized> Copy for Place<D> {}

impl<D: ?Sized> Place<D> {
    /// Of no version, so that it is never looked at.
    const EMPTY: Self = Self {
        version: NEVER,
        row: NonNull::dangling(),
    };
}

impl<D: ?Sized> Places<D> {
    fn new() -> Self {
        // By way of a vector, since an array would be made on the stack first.
        let places = vec![Place::EMPTY; 1 << BITS].into_boxed_slice();
        Self {
            places: places.try_into().ok().expect("there are so many"),
            used: false,
        }
    }

    fn remember(&mut self, at: usize, place: Place<D>) {
        self.places[at] = place;
        self.used = true;
    }

    fn forget(&mut self) {
        if self.used {
            self.places.fill(Place::EMPTY);
            self.used = false;
        }
    }
}

/// Where to look for `addr`.
///
/// The top bits of a product, which depend on all of the address. Devices like to lie at even
/// distances: half as many as there are places get places of their own if they are a power of two
/// apart, from a grain to 16,384 of them. The factor was found by trial; that of Fibonacci hashing
/// has two fifths of them share places at some distances.
#[inline]
fn place<R: BusRange>(addr: usize) -> usize {
    let hash = (addr as u64 >> R::GRAIN).wrapping_mul(0x7c1b_c191_317a_d735);
    (hash >> (u64::BITS - BITS)) as usize
}

impl<B: DeviceBound> Cache<B> {
    /// Parked.
    pub(crate) fn of(cell: &SnapshotCell<Tables<B>>) -> Self {
        Self {
            hold: Hold::parked(cell, Tables::new()),
            places: PerBus {
                mmio: Places::new(),
                sys_reg: Places::new(),
                port: Places::new(),
            },
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.hold.is_parked()
    }

    /// The tables that are held.
    pub(crate) fn tables(&self) -> &Tables<B> {
        self.hold.snapshot()
    }

    /// The row that accesses near `addr` were for, if it is remembered and the tables are current.
    #[inline(always)]
    pub(crate) fn recall<R: BusRange>(&self, addr: usize) -> Option<&Row<B::Dev<R>>> {
        let Place { version, row } = R::of(&self.places).places[place::<R>(addr)];
        if version != self.hold.latest() {
            return None;
        }
        // SAFETY: the latest version is not below the hold's, and no place's is above that (Fresh):
        // so the three are the same. There is none below the first, so the place is not empty. The
        // row is then one of the held tables, which are there while the cache is borrowed.
        Some(unsafe { row.as_ref() })
    }

    /// The index of the row of the held tables that owns all of an access, which is remembered.
    pub(crate) fn search<R: BusRange>(&mut self, access: Access<R>) -> Option<usize> {
        let table = self.hold.snapshot().of::<R>();
        let index = table.nearest(access.first());
        let row = table.rows().get(index)?;
        if !row.span.holds(access.first(), R::beyond(access.width)) {
            return None;
        }
        let found = Place {
            version: self.hold.version(),
            row: row.into(),
        };
        // INVARIANT (Fresh): the row is one of the held tables.
        R::of_mut(&mut self.places).remember(place::<R>(access.first()), found);
        Some(index)
    }

    /// Whether the held tables were replaced, as far as the version tells.
    pub(crate) fn is_outdated(&self, cell: &SnapshotCell<Tables<B>>) -> bool {
        !self.hold.is_of(cell) || self.hold.version() != self.hold.latest()
    }

    /// Whether the held tables are the current ones.
    pub(crate) fn is_current(&self, cell: &SnapshotCell<Tables<B>>) -> bool {
        self.hold.is_current(cell)
    }

    /// Takes hold of the cell's current tables.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<Tables<B>>) {
        if !self.hold.is_of(cell) || self.hold.version() == self.hold.latest() {
            // The new version may be that of other tables' places, or below it.
            self.forget();
        }
        // INVARIANT (Fresh): the new version is above that of every place, or every place is empty.
        self.hold.renew(cell);
    }

    /// Lets go of the tables.
    pub(crate) fn park(&mut self) {
        // INVARIANT (Fresh): no place has a version, which the next hold could have again.
        self.forget();
        self.hold.park();
    }

    fn forget(&mut self) {
        self.places.mmio.forget();
        self.places.sys_reg.forget();
        self.places.port.forget();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;

    use axaddrspace::{
        GuestPhysAddrRange,
        device::{AccessWidth, Port, PortRange},
    };

    use super::*;
    use crate::{device::ThreadSafe, registry::SharedVmDevices, span::Span, testing::Probe};

    fn add(devices: &SharedVmDevices, first: usize) {
        let span = Span::new(first, first).unwrap();
        devices
            .add_port_dev(Probe::<PortRange>::shared(span))
            .unwrap();
    }

    /// A registry with a device at each of these ports.
    fn registry(ports: &[usize]) -> SharedVmDevices {
        let devices = SharedVmDevices::default();
        ports.iter().for_each(|&port| add(&devices, port));
        devices
    }

    /// A cache that has found the device at the port.
    fn warm(devices: &SharedVmDevices, port: u16) -> Cache<ThreadSafe> {
        let mut cache = Cache::of(&devices.tables);
        cache.renew(&devices.tables);
        assert_eq!(search(&mut cache, port), Some(0));
        cache
    }

    fn search(cache: &mut Cache<ThreadSafe>, port: u16) -> Option<usize> {
        cache.search::<PortRange>(Access::read(Port(port), AccessWidth::Byte))
    }

    fn recalled(cache: &Cache<ThreadSafe>, port: usize) -> Option<Span> {
        cache.recall::<PortRange>(port).map(|row| row.span)
    }

    #[test]
    fn what_was_found_is_remembered_until_the_tables_are_replaced() {
        let devices = registry(&[5]);
        let mut cache = warm(&devices, 5);
        assert_eq!(recalled(&cache, 5), Span::new(5, 5));
        assert_eq!(recalled(&cache, 6), None);
        assert!(!cache.is_outdated(&devices.tables) && cache.is_current(&devices.tables));
        add(&devices, 6);
        assert!(cache.is_outdated(&devices.tables) && !cache.is_current(&devices.tables));
        assert_eq!(recalled(&cache, 5), None);
        cache.renew(&devices.tables);
        assert_eq!(recalled(&cache, 5), None, "it was another table's row");
        assert_eq!(search(&mut cache, 5), Some(0));
        assert_eq!(recalled(&cache, 5), Span::new(5, 5));
        // A publication may come before its version.
        cache.renew(&devices.tables);
        assert_eq!(recalled(&cache, 5), None, "it may be another table's row");
    }

    /// The tables of one version need not be those of that version before: a publication comes
    /// before its version.
    #[test]
    fn what_is_parked_remembers_nothing() {
        let devices = registry(&[5]);
        let mut cache = warm(&devices, 5);
        let version = cache.hold.version();
        cache.park();
        assert!(cache.is_parked());
        assert_eq!(recalled(&cache, 5), None);
        cache.renew(&devices.tables);
        assert_eq!(cache.hold.version(), version);
        assert_eq!(recalled(&cache, 5), None);
    }

    #[test]
    fn devices_at_even_distances_have_places_of_their_own() {
        for base in [0, 0xa00_0000, 0x1000_0000, 0x4000_0000, 0x10_0000_0000] {
            for distance in (9..=23).map(|bits| 1 << bits) {
                let devices = (0..1_usize << (BITS - 1)).map(|n| base + n * distance);
                let mut places: Vec<_> = devices.map(place::<GuestPhysAddrRange>).collect();
                places.sort_unstable();
                assert!(
                    places.is_sorted_by(|a, b| a < b),
                    "{base:#x}, {distance:#x}"
                );
            }
        }
    }

    /// Whose versions are the same, and mean other tables.
    #[test]
    fn of_another_registry_nothing_is_remembered() {
        let (one, other) = (registry(&[5]), registry(&[7]));
        let mut cache = warm(&one, 5);
        let version = cache.hold.version();
        cache.renew(&other.tables);
        assert_eq!(cache.hold.version(), version);
        assert_eq!((recalled(&cache, 5), recalled(&cache, 7)), (None, None));
        // And the first one's rows do not come back with its version.
        cache.renew(&one.tables);
        assert_eq!(recalled(&cache, 5), None);
    }
}
