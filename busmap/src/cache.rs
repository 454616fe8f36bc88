//! [`Cache`]: the tables as a vCPU keeps them, and where in them it found its last devices.

use alloc::{boxed::Box, vec};
use core::ptr::NonNull;

use crate::{
    bus::{Bus, Family, Handlers, On, PerBus},
    publish::{Hold, NEVER, SnapshotCell},
    table::Row,
    tables::Tables,
};

/// How many lines there are for each bus, as a power of two: enough for a thousand devices,
/// and 32 KiB. Under Miri, which is slow to make them, a few.
const BITS: u32 = if cfg!(miri) { 4 } else { 11 };

/// Tables that are held, and the rows of them that accesses were for, by where the accesses were.
///
/// As a processor's TLB, which a change of the tables flushes by their version.
///
/// # Invariants
///
/// *Fresh*: the version of a line is not above that of the hold. If it is the same and not
/// [`Line::EMPTY`]'s, the row is one of the held tables.
pub(crate) struct Cache<F: Handlers> {
    hold: Hold<Tables<F>>,
    lines: PerBus<LinesOf<F>>,
}

/// The family of lines.
struct LinesOf<F>(F);

impl<F: Handlers> Family for LinesOf<F> {
    type Of<K: Bus> = Lines<On<F, K>>;
}

/// The lines of one bus. Any of them may be overwritten for another access: that costs a search.
struct Lines<D: ?Sized> {
    lines: Box<[Line<D>; 1 << BITS]>,
    /// Whether any is not empty.
    used: bool,
}

/// Which row accesses near an address were for.
struct Line<D: ?Sized> {
    /// That of the hold when the row was found.
    version: u64,
    row: NonNull<Row<D>>,
}

// SAFETY: a line is used as a reference to its row is.
unsafe impl<D: ?Sized> Send for Line<D> where Row<D>: Sync {}

// SAFETY: a line is used as a reference to its row is.
unsafe impl<D: ?Sized> Sync for Line<D> where Row<D>: Sync {}

impl<D: ?Sized> Clone for Line<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: ?Sized> Copy for Line<D> {}

impl<D: ?Sized> Line<D> {
    /// Of no version, so that it is never looked at.
    const EMPTY: Self = Self {
        version: NEVER,
        row: NonNull::dangling(),
    };
}

impl<D: ?Sized> Lines<D> {
    fn new() -> Self {
        // By way of a vector, since an array would be made on the stack first.
        let lines = vec![Line::EMPTY; 1 << BITS].into_boxed_slice();
        Self {
            lines: lines.try_into().ok().expect("there are so many"),
            used: false,
        }
    }

    fn remember(&mut self, at: usize, line: Line<D>) {
        self.lines[at] = line;
        self.used = true;
    }

    fn forget(&mut self) {
        if self.used {
            self.lines.fill(Line::EMPTY);
            self.used = false;
        }
    }
}

/// Where to look for `addr`.
///
/// The top bits of a product, which depend on all of the address. Devices like to lie at even
/// distances: half as many as there are lines get lines of their own if they are a power of two
/// apart, from a grain to 16,384 of them. The factor was found by trial; that of Fibonacci hashing
/// has two fifths of them share lines at some distances.
#[inline]
fn line_of<K: Bus>(addr: u64) -> usize {
    let hash = (addr >> K::GRAIN).wrapping_mul(0x7c1b_c191_317a_d735);
    (hash >> (u64::BITS - BITS)) as usize
}

impl<F: Handlers> Cache<F> {
    /// Parked.
    pub(crate) fn of(cell: &SnapshotCell<Tables<F>>) -> Self {
        Self {
            hold: Hold::parked(cell, Tables::new()),
            lines: PerBus {
                mmio: Lines::new(),
                sys_reg: Lines::new(),
                port: Lines::new(),
            },
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.hold.is_parked()
    }

    /// The tables that are held.
    pub(crate) fn tables(&self) -> &Tables<F> {
        self.hold.snapshot()
    }

    /// The row that accesses near `addr` were for, if it is remembered and the tables are current.
    #[inline(always)]
    pub(crate) fn recall<K: Bus>(&self, addr: u64) -> Option<&Row<On<F, K>>> {
        let Line { version, row } = K::of(&self.lines).lines[line_of::<K>(addr)];
        if version != self.hold.latest() {
            return None;
        }
        // SAFETY: the latest version is not below the hold's, and no line's is above that (Fresh):
        // so the three are the same. There is none below the first, so the line is not empty. The
        // row is then one of the held tables, which are there while the cache is borrowed.
        Some(unsafe { row.as_ref() })
    }

    /// The index of the row of the held tables that owns all of `addr ..= addr + beyond`, which is
    /// remembered.
    pub(crate) fn search<K: Bus>(&mut self, addr: u64, beyond: u64) -> Option<usize> {
        let (index, row) = self.hold.snapshot().of::<K>().find_all(addr, beyond)?;
        let found = Line {
            version: self.hold.version(),
            row: row.into(),
        };
        // INVARIANT (Fresh): the row is one of the held tables.
        K::of_mut(&mut self.lines).remember(line_of::<K>(addr), found);
        Some(index)
    }

    /// Whether the held tables were replaced, as far as the version tells.
    pub(crate) fn is_outdated(&self, cell: &SnapshotCell<Tables<F>>) -> bool {
        !self.hold.is_of(cell) || self.hold.version() != self.hold.latest()
    }

    /// Whether the held tables are the current ones.
    pub(crate) fn is_current(&self, cell: &SnapshotCell<Tables<F>>) -> bool {
        self.hold.is_current(cell)
    }

    /// Takes hold of the cell's current tables.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<Tables<F>>) {
        if !self.hold.is_of(cell) || self.hold.version() == self.hold.latest() {
            // The new version may be that of other tables' lines, or below it.
            self.forget();
        }
        // INVARIANT (Fresh): the new version is above that of every line, or every line is empty.
        self.hold.renew(cell);
    }

    /// Lets go of the tables.
    pub(crate) fn park(&mut self) {
        // INVARIANT (Fresh): no line has a version, which the next hold could have again.
        self.forget();
        self.hold.park();
    }

    fn forget(&mut self) {
        self.lines.mmio.forget();
        self.lines.sys_reg.forget();
        self.lines.port.forget();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::{
        bus::{Mmio, Port},
        registry::Registry,
        span::Span,
        testing::{Named, named},
    };

    fn add(devices: &Registry<Named>, first: u64) {
        let span = Span::new(first, first).unwrap();
        devices.add::<Port>(named("device"), span).unwrap();
    }

    /// A registry with a device at each of these ports.
    fn registry(ports: &[u64]) -> Registry<Named> {
        let devices = Registry::new();
        ports.iter().for_each(|&port| add(&devices, port));
        devices
    }

    /// A cache that has found the device at the port.
    fn warm(devices: &Registry<Named>, port: u64) -> Cache<Named> {
        let mut cache = Cache::of(&devices.tables);
        cache.renew(&devices.tables);
        assert_eq!(search(&mut cache, port), Some(0));
        cache
    }

    fn search(cache: &mut Cache<Named>, port: u64) -> Option<usize> {
        cache.search::<Port>(port, 0)
    }

    fn recalled(cache: &Cache<Named>, port: u64) -> Option<Span> {
        cache.recall::<Port>(port).map(|row| row.span)
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
    fn devices_at_even_distances_have_lines_of_their_own() {
        for base in [0, 0xa00_0000, 0x1000_0000, 0x4000_0000, 0x10_0000_0000] {
            for distance in (9..=23).map(|bits| 1_u64 << bits) {
                let devices = (0..1_u64 << (BITS - 1)).map(|n| base + n * distance);
                let mut lines: Vec<_> = devices.map(line_of::<Mmio>).collect();
                lines.sort_unstable();
                assert!(lines.is_sorted_by(|a, b| a < b), "{base:#x}, {distance:#x}");
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
