//! [`Cache`]: the tables as a vCPU keeps them, and where in them it found its last devices.

use alloc::{boxed::Box, vec};
use core::ptr::NonNull;

use crate::{
    bus::{BusRange, Family, PerBus},
    device::DeviceBound,
    publish::{Hold, NEVER, SnapshotCell},
    table::Row,
    tables::Tables,
};

/// How many places are remembered for each bus, as a power of two: enough for a thousand devices,
/// and 32 KiB.
const BITS: u32 = 11;

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

/// A row of bus `R`.
type RowOn<B, R> = Row<<B as DeviceBound>::Dev<R>>;

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
    version: usize,
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
/// Fibonacci hashing: runs that lie at even distances, as devices like to, get different places, and
/// the top bits of the product depend on all of the address.
#[inline]
fn place<R: BusRange>(addr: usize) -> usize {
    let hash = (addr as u64 >> R::GRAIN).wrapping_mul(0x9e37_79b9_7f4a_7c15);
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
    pub(crate) fn recall<R: BusRange>(&self, addr: usize) -> Option<&RowOn<B, R>> {
        let Place { version, row } = R::of(&self.places).places[place::<R>(addr)];
        if version != self.hold.latest() {
            return None;
        }
        // SAFETY: the latest version is not below the hold's, and no place's is above that (Fresh):
        // so the three are the same. There is none below the first, so the place is not empty. The
        // row is then one of the held tables, which are there while the cache is borrowed.
        Some(unsafe { row.as_ref() })
    }

    /// The row of the held tables that owns `addr`, which is remembered; beside the tables.
    pub(crate) fn search<R: BusRange>(
        &mut self,
        addr: usize,
    ) -> (&Tables<B>, Option<&RowOn<B, R>>) {
        let tables = self.hold.snapshot();
        let row = tables.of::<R>().find(addr);
        if let Some(row) = row {
            // INVARIANT (Fresh): the row is one of the held tables.
            let found = Place {
                version: self.hold.version(),
                row: row.into(),
            };
            R::of_mut(&mut self.places).remember(place::<R>(addr), found);
        }
        (tables, row)
    }

    /// Holds the cell's current tables; tells whether they were others before.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<Tables<B>>) -> bool {
        let same = self.hold.is_of(cell);
        if same && self.hold.version() == self.hold.latest() {
            return false;
        }
        if !same {
            // Its versions may be lower ones.
            self.forget();
        }
        // INVARIANT (Fresh): the new version is above that of every place, or no place has any.
        self.hold.renew(cell);
        true
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
    use axaddrspace::device::PortRange;

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
    fn warm(devices: &SharedVmDevices, port: usize) -> Cache<ThreadSafe> {
        let mut cache = Cache::of(&devices.tables);
        assert!(cache.renew(&devices.tables));
        assert!(cache.search::<PortRange>(port).1.is_some());
        cache
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
        assert!(!cache.renew(&devices.tables), "they are still the same");
        add(&devices, 6);
        assert_eq!(recalled(&cache, 5), None);
        assert!(cache.renew(&devices.tables));
        assert_eq!(recalled(&cache, 5), None, "it was another table's row");
        assert!(cache.search::<PortRange>(5).1.is_some());
        assert_eq!(recalled(&cache, 5), Span::new(5, 5));
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
        assert!(cache.renew(&devices.tables));
        assert_eq!(cache.hold.version(), version);
        assert_eq!(recalled(&cache, 5), None);
    }

    /// Whose versions are the same, and mean other tables.
    #[test]
    fn of_another_registry_nothing_is_remembered() {
        let (one, other) = (registry(&[5]), registry(&[7]));
        let mut cache = warm(&one, 5);
        let version = cache.hold.version();
        assert!(cache.renew(&other.tables));
        assert_eq!(cache.hold.version(), version);
        assert_eq!((recalled(&cache, 5), recalled(&cache, 7)), (None, None));
        // And the first one's rows do not come back with its version.
        assert!(cache.renew(&one.tables));
        assert_eq!(recalled(&cache, 5), None);
    }
}
