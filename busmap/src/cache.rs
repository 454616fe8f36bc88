//! [`Cache`]: the tables that a vCPU holds, and the device that it accesses most.

use core::ptr::NonNull;

use crate::{
    bus::{Bus, Family, Handlers, On, PerBus},
    direction::Direction,
    publish::{Hold, NEVER, SnapshotCell},
    registry::Hit,
    table::Row,
    tables::Tables,
    tallies::Tallies,
};

/// The tables that a vCPU holds, and for each bus a hint: the row that the next access is likely to be for.
///
/// A hint saves the search when a vCPU polls one device. When accesses go to many devices, a processor cannot predict
/// whether the hint matches. So the hint is set rarely, and the first access that its row does not hold clears it. The
/// hint is the device that the [`Tallies`] count as the hot one.
///
/// # Invariants
///
/// *Hinted*: a hint's version is [`NEVER`], and the hint has no row; or its version is the hold's, and its row is of
/// the held tables, which are [sure](Self::is_sure) to be the current ones while the cell has that version.
pub(crate) struct Cache<F: Handlers> {
    hold: Hold<Tables<F>>,
    /// The hold's version, if the held tables are certainly the current ones while the cell has that version, and do
    /// not stand in for withdrawn devices. [`NEVER`] otherwise.
    sure: u64,
    hints: PerBus<HintOf<F>>,
}

/// The device of an access, or the row that holds its first address.
type Found<'t, F, K> = Result<Hit<'t, F, K>, Option<&'t Row<On<F, K>>>>;

/// The family of hints.
struct HintOf<F>(F);

impl<F: Handlers> Family for HintOf<F> {
    type Of<K: Bus> = Hint<On<F, K>>;
}

/// The row that the next access is likely to be for.
struct Hint<D: ?Sized> {
    /// The hold's version, or [`NEVER`] if there is no row: so one comparison with the cell's version checks that there
    /// is a row and that the tables are current.
    version: u64,
    row: NonNull<Row<D>>,
}

// SAFETY: a hint is used like a reference to its row.
unsafe impl<D: ?Sized> Send for Hint<D> where Row<D>: Sync {}

// SAFETY: a hint is used like a reference to its row.
unsafe impl<D: ?Sized> Sync for Hint<D> where Row<D>: Sync {}

impl<D: ?Sized> Hint<D> {
    /// A hint without a row.
    const NONE: Self = Self {
        version: NEVER,
        row: NonNull::dangling(),
    };

    /// Makes a row of the held tables the hint. `version` is the version of these tables; with [`NEVER`] there is no
    /// hint.
    fn set(&mut self, row: &Row<D>, version: u64) {
        // INVARIANT (Hinted): the caller guarantees it.
        self.version = version;
        self.row = row.into();
    }
}

impl<F: Handlers> Cache<F> {
    /// Parked.
    pub(crate) fn of(cell: &SnapshotCell<Tables<F>>) -> Self {
        Self {
            hold: Hold::parked(cell, Tables::new()),
            sure: NEVER,
            hints: PerBus {
                mmio: Hint::NONE,
                sys_reg: Hint::NONE,
                port: Hint::NONE,
            },
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.hold.is_parked()
    }

    /// The tables that are held.
    #[inline(always)]
    pub(crate) fn tables(&self) -> &Tables<F> {
        self.hold.snapshot()
    }

    /// The version of the current tables.
    #[inline(always)]
    pub(crate) fn latest(&self) -> u64 {
        self.hold.latest()
    }

    /// The hint, if there is one and the held tables are of version `latest`, which [`latest`](Self::latest) has
    /// returned.
    #[inline(always)]
    pub(crate) fn hint<K: Bus>(&self, latest: u64) -> Option<&Row<On<F, K>>> {
        let hint = K::of(&self.hints);
        if hint.version != latest {
            return None;
        }
        // SAFETY: no cell has the version `NEVER`, so the hint has a row of the held tables (Hinted). They live while
        // the cache is borrowed.
        Some(unsafe { hint.row.as_ref() })
    }

    /// The row of the held tables that owns all of `at ..= at + beyond`. Counts the access. If the device becomes the
    /// hot one, the row becomes the hint.
    ///
    /// # Errors
    ///
    /// The row that owns `at`, if there is one.
    #[inline(always)]
    pub(crate) fn search<K: Bus>(
        &mut self,
        tallies: &mut Tallies,
        direction: Direction,
        at: u64,
        beyond: u64,
    ) -> Found<'_, F, K> {
        let tables = self.hold.snapshot();
        let row = tables.of::<K>().search(at, beyond)?;
        if tallies.count::<K>(row.index, direction) {
            K::of_mut(&mut self.hints).set(row, self.sure);
        }
        Ok(Hit { row, tables })
    }

    /// Clears the hint.
    #[inline(always)]
    pub(crate) fn unhint<K: Bus>(&mut self) {
        // INVARIANT (Hinted): with the version `NEVER` the hint has no row.
        K::of_mut(&mut self.hints).version = NEVER;
    }

    /// Whether the held tables are certainly the current ones, and do not stand in for withdrawn devices. `latest` is
    /// the result of [`latest`](Self::latest).
    #[inline(always)]
    pub(crate) fn is_sure(&self, latest: u64) -> bool {
        self.sure == latest
    }

    /// Whether the held tables were replaced, according to the version.
    pub(crate) fn is_outdated(&self, cell: &SnapshotCell<Tables<F>>) -> bool {
        !self.hold.is_of(cell) || self.hold.version() != self.latest()
    }

    /// Whether the held tables are the current ones.
    pub(crate) fn is_current(&self, cell: &SnapshotCell<Tables<F>>) -> bool {
        self.hold.is_current(cell)
    }

    /// Takes the cell's current tables, and attributes their indices in the tallies.
    pub(crate) fn renew(&mut self, cell: &SnapshotCell<Tables<F>>, tallies: &mut Tallies) {
        // INVARIANT (Hinted): no hint has a row.
        self.unhint_all();
        let old = self.hold.renew(cell);
        let tables = self.hold.snapshot();
        let is_sure = self.hold.is_settled() && tables.withdrawal().is_none();
        self.sure = if is_sure { self.hold.version() } else { NEVER };
        tables.for_each_new(&old, |index, id| tallies.attribute(index, id));
    }

    /// Drops the tables.
    pub(crate) fn park(&mut self) {
        // INVARIANT (Hinted): no hint has a row.
        self.unhint_all();
        self.sure = NEVER;
        self.hold.park();
    }

    fn unhint_all(&mut self) {
        self.hints.mmio.version = NEVER;
        self.hints.sys_reg.version = NEVER;
        self.hints.port.version = NEVER;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        bus::Port,
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

    /// A cache whose hint is the device at the port.
    fn warm(devices: &Registry<Named>, port: u64) -> Cache<Named> {
        let mut cache = Cache::of(&devices.tables);
        renew(&mut cache, devices);
        assert_eq!(find(&mut cache, port), Span::new(port, port));
        assert_eq!(hinted(&cache), Span::new(port, port));
        cache
    }

    fn find(cache: &mut Cache<Named>, port: u64) -> Option<Span> {
        find_of(cache, &mut Tallies::new(), port)
    }

    fn find_of(cache: &mut Cache<Named>, tallies: &mut Tallies, port: u64) -> Option<Span> {
        let hit = cache.search::<Port>(tallies, Direction::Read, port, 0);
        hit.ok().map(|hit| hit.row.span)
    }

    fn renew(cache: &mut Cache<Named>, devices: &Registry<Named>) {
        cache.renew(&devices.tables, &mut Tallies::new());
    }

    fn hinted(cache: &Cache<Named>) -> Option<Span> {
        cache.hint::<Port>(cache.latest()).map(|row| row.span)
    }

    #[test]
    fn the_hint_lasts_until_the_tables_are_replaced() {
        let devices = registry(&[5]);
        let mut cache = warm(&devices, 5);
        assert!(!cache.is_outdated(&devices.tables) && cache.is_current(&devices.tables));
        add(&devices, 6);
        assert!(cache.is_outdated(&devices.tables) && !cache.is_current(&devices.tables));
        assert_eq!(hinted(&cache), None);
        renew(&mut cache, &devices);
        assert_eq!(hinted(&cache), None, "it was another table's row");
    }

    #[test]
    fn one_access_of_many_sets_the_hint() {
        let devices = registry(&[5, 6]);
        let mut cache = warm(&devices, 5);
        cache.unhint::<Port>();
        let tallies = &mut Tallies::new();
        assert_eq!(find_of(&mut cache, tallies, 6), Span::new(6, 6));
        assert_eq!(hinted(&cache), Span::new(6, 6), "the first access does");
        cache.unhint::<Port>();
        let mut more = 0;
        while hinted(&cache).is_none() {
            assert_eq!(find_of(&mut cache, tallies, 5), Span::new(5, 5));
            more += 1;
        }
        assert_eq!(hinted(&cache), Span::new(5, 5));
        assert!((8..=1_000).contains(&more), "{more}");
    }

    /// Two holds of the same version may have different tables: a publication comes before its version.
    #[test]
    fn a_parked_handle_has_no_hint() {
        let devices = registry(&[5]);
        let mut cache = warm(&devices, 5);
        let version = cache.hold.version();
        cache.park();
        assert!(cache.is_parked());
        assert_eq!(hinted(&cache), None);
        renew(&mut cache, &devices);
        assert_eq!(cache.hold.version(), version);
        assert_eq!(hinted(&cache), None);
    }

    /// Both registries have the same version, with different tables.
    #[test]
    fn of_another_registry_there_is_no_hint() {
        let (one, other) = (registry(&[5]), registry(&[7]));
        let mut cache = warm(&one, 5);
        let version = cache.hold.version();
        renew(&mut cache, &other);
        assert_eq!(cache.hold.version(), version);
        assert_eq!(hinted(&cache), None);
        // And the row of the first registry does not come back with its version.
        renew(&mut cache, &one);
        assert_eq!(hinted(&cache), None);
    }

    #[test]
    fn a_handle_is_not_sure_of_replaced_tables_nor_while_parked() {
        let devices = registry(&[5]);
        let mut cache = warm(&devices, 5);
        let is_sure = |cache: &Cache<Named>| cache.is_sure(cache.latest());
        assert!(is_sure(&cache));
        add(&devices, 6);
        assert!(!is_sure(&cache));
        renew(&mut cache, &devices);
        assert!(is_sure(&cache));
        cache.park();
        assert!(!is_sure(&cache));
    }

    #[test]
    fn a_handle_is_not_sure_while_the_devices_are_withdrawn() {
        let mut devices = registry(&[5]);
        let withdrawn = devices.withdraw();
        let mut cache = Cache::of(&devices.tables);
        renew(&mut cache, &devices);
        assert!(!cache.is_outdated(&devices.tables) && !cache.is_sure(cache.latest()));
        devices.restore(&withdrawn).unwrap();
        renew(&mut cache, &devices);
        assert!(cache.is_sure(cache.latest()));
    }
}
