//! [`Vcpu`]: a vCPU's own handle of the registry.

use alloc::boxed::Box;
use core::{fmt, hint, ops::Deref};

use crate::{
    bus::{Bus, Family, Handlers, Mmio, PerBus, Port, SysReg},
    cache::Cache,
    direction::Direction,
    miss::Miss,
    profile::Profile,
    registry::{Hit, Registry},
    space_saving::SpaceSaving,
    sync::mutant,
    tables::Tables,
    tallies::Tallies,
};

/// A vCPU's own handle of a registry: it keeps the tables from one dispatch to the next, and first tries the device
/// that it accesses most.
///
/// It dispatches as [`Registry::dispatch`] does, with these differences:
///
/// - It takes the direction of an access, and counts accesses: [`profile`](Self::profile) returns the counts by device
///   and the most frequent missed addresses.
/// - It takes `&mut self`: one vCPU uses it at a time.
/// - It is faster. A dispatch checks with one load whether the tables were replaced. If they were not and a device
///   answers, it writes only the handle's own memory.
/// - It *holds* the tables until it detects that they were replaced: at the next dispatch, at
///   [`refresh`](Self::refresh), or at [`park`](Self::park). Until then the devices in them live, even those that the
///   registry no longer lists.
///
/// A vCPU that leaves its run loop, or sleeps for a long time, should park its handle. To make a vCPU release a removed
/// device, kick it out of its guest, and let it refresh or park.
///
/// `V` always dereferences to the same registry. It is a reference, or an `Arc` for a handle in a vCPU's struct.
///
/// # Memory ordering
///
/// As for the registry: after a method that changes the registry has returned, every vCPU that synchronises with the
/// caller dispatches by the new tables, with or without a `refresh`. Even before it returns, a vCPU that has seen the
/// change, through the registry itself or through another vCPU, sees it through its handle too.
pub struct Vcpu<V: Deref<Target: RegistryLike>> {
    cache: Cache<<V::Target as RegistryLike>::Handlers>,
    tallies: Tallies,
    refreshes: PerBus<NumberOf>,
    missed: Box<PerBus<MissedOf>>,
    /// Misses that [`take_profile`](Vcpu::take_profile) has returned.
    taken_misses: PerBus<NumberOf>,
    registry: V,
}

/// A [`Registry`], as the target of a pointer.
pub trait RegistryLike: sealed::RegistryLike {
    /// The handlers that are registered there.
    type Handlers: Handlers;
}

impl<F: Handlers> RegistryLike for Registry<F> {
    type Handlers = F;
}

mod sealed {
    pub trait RegistryLike {}

    impl<F: super::Handlers> RegistryLike for super::Registry<F> {}
}

/// Counts of a handle on one bus. An access that finds the devices withdrawn is not counted: it is repeated when they
/// are back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusCounters {
    /// Accesses to the device that was tried first, without a lookup.
    pub hits: u64,
    /// Accesses to a device that was looked up in the tables.
    pub searches: u64,
    /// Accesses that no device answered.
    pub misses: u64,
    /// Accesses that found the tables replaced, or the handle parked.
    pub refreshes: u64,
}

/// The family of numbers.
struct NumberOf;

impl Family for NumberOf {
    type Of<K: Bus> = u64;
}

const ZEROS: PerBus<NumberOf> = PerBus {
    mmio: 0,
    port: 0,
    sys_reg: 0,
};

/// The family of sketches of the missed addresses.
struct MissedOf;

impl Family for MissedOf {
    type Of<K: Bus> = SpaceSaving;
}

fn nothing_missed() -> PerBus<MissedOf> {
    PerBus {
        mmio: SpaceSaving::new(),
        port: SpaceSaving::new(),
        sys_reg: SpaceSaving::new(),
    }
}

impl<F: Handlers> Registry<F> {
    /// A vCPU's own handle of this registry. [`Vcpu::new`] makes one from an `Arc`.
    pub fn vcpu(&self) -> Vcpu<&Self> {
        Vcpu::new(self)
    }
}

impl<F: Handlers, V: Deref<Target = Registry<F>>> Vcpu<V> {
    /// A parked handle of the registry that `registry` dereferences to: it holds no tables yet.
    ///
    /// Allocates less than 4 KiB, and 32 bytes for each registered device, in groups of 32, for its counts. A dispatch
    /// allocates nothing; [`refresh`](Self::refresh) and [`take_profile`](Self::take_profile) allocate room for
    /// devices that were added.
    pub fn new(registry: V) -> Self {
        let mut tallies = Tallies::new();
        make_room(&mut tallies, &registry.tables.load());
        Self {
            cache: Cache::of(&registry.tables),
            tallies,
            taken_misses: ZEROS,
            refreshes: ZEROS,
            missed: Box::new(nothing_missed()),
            registry,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &V {
        &self.registry
    }

    /// The counts on bus `K` since the handle was made.
    pub fn counters<K: Bus>(&self) -> BusCounters {
        BusCounters {
            hits: self.tallies.counted_hot::<K>(),
            searches: self.tallies.counted_others::<K>(),
            misses: K::of(&self.taken_misses) + K::of(&self.missed).total(),
            refreshes: *K::of(&self.refreshes),
        }
    }

    /// The accesses by device, and the most frequent missed addresses, since the handle was made or since
    /// [`take_profile`](Self::take_profile).
    ///
    /// Allocates the lists that it returns.
    pub fn profile(&self) -> Profile {
        let PerBus {
            mmio,
            port,
            sys_reg,
        } = &*self.missed;
        let missed = [mmio, port, sys_reg].map(SpaceSaving::list);
        Profile::of(&self.tallies, missed)
    }

    /// Returns the [`profile`](Self::profile) and starts an empty one. The [`counters`](Self::counters) are not reset.
    ///
    /// Makes room for devices that were added, as [`refresh`](Self::refresh) does.
    pub fn take_profile(&mut self) -> Profile {
        let profile = self.profile();
        self.tallies.clear();
        self.taken_misses.mmio += self.missed.mmio.total();
        self.taken_misses.port += self.missed.port.total();
        self.taken_misses.sys_reg += self.missed.sys_reg.total();
        self.missed.mmio.clear();
        self.missed.port.clear();
        self.missed.sys_reg.clear();
        make_room(&mut self.tallies, self.cache.tables());
        profile
    }

    /// Whether the handle holds no tables.
    pub fn is_parked(&self) -> bool {
        self.cache.is_parked()
    }

    /// Drops tables that were replaced, and holds the current ones.
    ///
    /// If devices were added since the handle was made, and there is memory, makes room for a count of each: it then
    /// allocates and frees the handle's own memory.
    pub fn refresh(&mut self) {
        if !self.cache.is_current(&self.registry.tables) {
            self.cache.renew(&self.registry.tables, &mut self.tallies);
        }
        make_room(&mut self.tallies, self.cache.tables());
    }

    /// Drops the tables. The next dispatch, or [`refresh`](Self::refresh), takes the current ones.
    pub fn park(&mut self) {
        self.cache.park();
    }

    /// Calls `enter` with the one device that owns all of `at ..= at + beyond` on bus `K`, and returns its result. Counts
    /// the access as a read or a write of that device, or as a miss at `at`.
    ///
    /// # Errors
    ///
    /// [`Miss`], if there is no such device; `enter` is not called then.
    #[inline(always)]
    pub fn dispatch<K: Bus, T>(
        &mut self,
        direction: Direction,
        at: u64,
        beyond: u64,
        enter: impl FnOnce(Hit<'_, F, K>) -> T,
    ) -> Result<T, Miss> {
        self.dispatch_with(direction, at, beyond, |found| {
            found.map(enter).map_err(|(_, miss)| miss)
        })
    }

    /// As [`dispatch`](Self::dispatch), but calls `answer` for a miss too, with the handle, and so builds no [`Result`]:
    /// a few instructions less.
    #[inline(always)]
    pub fn dispatch_with<K: Bus, T>(
        &mut self,
        direction: Direction,
        at: u64,
        beyond: u64,
        answer: impl FnOnce(Result<Hit<'_, F, K>, (&mut Self, Miss)>) -> T,
    ) -> T {
        let latest = self.cache.latest();
        if let Some(row) = self.cache.hint::<K>(latest) {
            if row.span.holds(at, beyond) {
                self.tallies.count_hot::<K>(direction);
                let tables = self.cache.tables();
                return answer(Ok(Hit { row, tables }));
            }
            hint::cold_path();
            self.cache.unhint::<K>();
        }
        if !self.cache.is_sure(latest) {
            hint::cold_path();
            if self.renew::<K>().is_err() {
                return answer(Err((self, Miss::Withdrawn)));
            }
        }
        match (self.cache).search::<K>(&mut self.tallies, direction, at, beyond) {
            Ok(hit) => answer(Ok(hit)),
            Err(holder) => {
                let miss = Miss::at(holder);
                K::of_mut(&mut self.missed).count(at);
                answer(Err((self, miss)))
            }
        }
    }

    /// Takes the current tables, for an access on bus `K`.
    ///
    /// While a publication is under way, the version does not show whether it is complete. The vCPU may already have
    /// seen it in another way, and must not find older tables through its handle: so this compares with the cell
    /// itself.
    ///
    /// # Errors
    ///
    /// [`Miss::Withdrawn`]: the access is repeated later, and not counted.
    #[cold]
    #[inline(never)]
    fn renew<K: Bus>(&mut self) -> Result<(), Miss> {
        let cell = &self.registry.tables;
        let is_outdated = self.cache.is_outdated(cell)
            || !mutant("handle-trusts") && !self.cache.is_current(cell);
        if is_outdated {
            self.cache.renew(cell, &mut self.tallies);
        }
        if self.cache.tables().withdrawal().is_some() {
            return Err(Miss::Withdrawn);
        }
        *K::of_mut(&mut self.refreshes) += u64::from(is_outdated);
        Ok(())
    }
}

/// Makes room to count the accesses to the devices of these tables, and to some more.
fn make_room<F: Handlers>(tallies: &mut Tallies, tables: &Tables<F>) {
    tallies.grow(tables.places(), |index| tables.id_at(index));
}

impl<F: Handlers, V: Deref<Target = Registry<F>>> fmt::Debug for Vcpu<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("parked", &self.cache.is_parked())
            .field("mmio", &self.counters::<Mmio>())
            .field("port", &self.counters::<Port>())
            .field("sys_reg", &self.counters::<SysReg>())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        span::Span,
        sync::{Arc, writes},
        testing::{Named, named},
    };

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    /// A registry with a device at the ports 0x10 to 0x1f.
    fn registry() -> Registry<Named> {
        let devices = Registry::new();
        let span = span(0x10, 0x1f);
        devices.add::<Port>(named("one"), span).unwrap();
        devices
    }

    type Handle<'r> = Vcpu<&'r Registry<Named>>;

    fn read(vcpu: &mut Handle<'_>, at: u64, beyond: u64) -> Result<String, Miss> {
        vcpu.dispatch::<Port, _>(Direction::Read, at, beyond, |hit| hit.handler().to_owned())
    }

    fn one() -> Result<String, Miss> {
        Ok("one".into())
    }

    fn counted(hits: u64, searches: u64, misses: u64, refreshes: u64) -> BusCounters {
        BusCounters {
            hits,
            searches,
            misses,
            refreshes,
        }
    }

    #[test]
    fn counts_hits_searches_misses_and_refreshes_on_each_bus() {
        let devices = registry();
        let mut vcpu = devices.vcpu();
        assert_eq!(vcpu.counters::<Port>(), BusCounters::default());
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(0, 1, 0, 1));
        assert_eq!(read(&mut vcpu, 0x10, 3), one());
        assert_eq!(vcpu.counters::<Port>(), counted(1, 1, 0, 1));
        assert_eq!(read(&mut vcpu, 0x18, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(2, 1, 0, 1));
        assert_eq!(read(&mut vcpu, 0x20, 0), Err(Miss::Unmapped));
        assert_eq!(vcpu.counters::<Port>(), counted(2, 1, 1, 1));
        devices.add::<Port>(named("two"), span(0x20, 0x20)).unwrap();
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(2, 2, 1, 2));
        assert_eq!(vcpu.counters::<Mmio>(), BusCounters::default());
        let missed = vcpu.dispatch::<SysReg, _>(Direction::Read, 0x10, 0, |_| ());
        assert_eq!(missed, Err(Miss::Unmapped));
        assert_eq!(vcpu.counters::<SysReg>(), counted(0, 0, 1, 0));
    }

    #[test]
    fn an_access_past_the_end_of_a_span_misses_with_and_without_a_hint() {
        let devices = registry();
        devices.add::<Port>(named("two"), span(0x20, 0x2f)).unwrap();
        let mut vcpu = devices.vcpu();
        let crosses = Err(Miss::Crosses(span(0x10, 0x1f)));
        assert_eq!(read(&mut vcpu, 0x1f, 1), crosses);
        assert_eq!(read(&mut vcpu, 0x1f, 0), one());
        assert_eq!(read(&mut vcpu, 0x1f, 1), crosses);
        assert_eq!(read(&mut vcpu, 0x1f, u64::MAX), crosses);
        assert_eq!(read(&mut vcpu, 0xf, 1), Err(Miss::Unmapped));
        assert_eq!(vcpu.counters::<Port>(), counted(0, 1, 4, 1));
    }

    #[test]
    fn parks_and_takes_hold_again() {
        let devices = registry();
        let handler = devices.find::<Port>(0x10).unwrap().1;
        let id = devices.find::<Port>(0x10).unwrap().0;
        let mut vcpu = devices.vcpu();
        assert!(vcpu.is_parked());
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        assert!(!vcpu.is_parked());
        let removed = devices.remove(id).unwrap();
        assert!(!removed.is_quiescent());
        vcpu.park();
        assert!(vcpu.is_parked() && removed.is_quiescent());
        drop(removed);
        assert_eq!(Arc::strong_count(&handler), 1);
        assert_eq!(read(&mut vcpu, 0x10, 0), Err(Miss::Unmapped));
        assert!(!vcpu.is_parked(), "also a miss is by the current tables");
        assert_eq!(vcpu.counters::<Port>(), counted(0, 1, 1, 2));
    }

    #[test]
    fn an_access_that_finds_the_devices_withdrawn_is_counted_when_it_is_made_again() {
        let mut devices = registry();
        let withdrawn = devices.withdraw();
        let mut vcpu = devices.vcpu();
        assert_eq!(read(&mut vcpu, 0x10, 0), Err(Miss::Withdrawn));
        assert_eq!(read(&mut vcpu, 0x20, 0), Err(Miss::Withdrawn));
        assert_eq!(vcpu.counters::<Port>(), BusCounters::default());
        devices.restore(&withdrawn).unwrap();
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(0, 1, 0, 1));
    }

    #[test]
    fn a_refresh_drops_replaced_tables() {
        let devices = registry();
        let id = devices.find::<Port>(0x10).unwrap().0;
        let mut vcpu = devices.vcpu();
        vcpu.refresh();
        assert!(!vcpu.is_parked());
        let removed = devices.remove(id).unwrap();
        assert!(!removed.is_quiescent());
        vcpu.refresh();
        assert!(removed.is_quiescent() && !vcpu.is_parked());
        // Only an access counts.
        assert_eq!(vcpu.counters::<Port>(), BusCounters::default());
    }

    #[test]
    fn an_access_sees_a_change_that_has_returned() {
        let devices = registry();
        let mut vcpu = devices.vcpu();
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        let id = devices.find::<Port>(0x10).unwrap().0;
        let (from, to) = (span(0x10, 0x1f), span(0x18, 0x27));
        devices.move_to::<Port>(id, from, to).unwrap();
        assert_eq!(read(&mut vcpu, 0x10, 0), Err(Miss::Unmapped));
        assert_eq!(read(&mut vcpu, 0x27, 0), one());
        drop(devices.remove(id).unwrap());
        assert_eq!(read(&mut vcpu, 0x27, 0), Err(Miss::Unmapped));
    }

    #[test]
    fn can_live_beside_its_registry() {
        let devices = Arc::new(registry());
        let mut vcpu = Vcpu::new(devices.clone());
        let found = vcpu.dispatch::<Port, _>(Direction::Read, 0x10, 0, |hit| *hit.tag());
        assert_eq!(found, Ok("one"));
        assert!(Arc::ptr_eq(vcpu.registry(), &devices));
        drop(devices);
        let found = vcpu.dispatch::<Port, _>(Direction::Read, 0x10, 0, |hit| *hit.tag());
        assert_eq!(found, Ok("one"));
    }

    /// Counts the writes to memory that the registry shares. The handle's own memory has no atomics, and those of the
    /// hosted cell are arc-swap's: `.ci/stores.sh` traces every store with either cell.
    #[test]
    fn a_warm_dispatch_writes_nothing_shared() {
        let devices = registry();
        let mut vcpu = devices.vcpu();
        let mut read = || assert_eq!(read(&mut vcpu, 0x13, 0), one());
        let (cold, warm) = (writes(&mut read), writes(&mut read));
        assert_eq!(warm, 0);
        // Without the handle, a slot is claimed and cleared: so the count works.
        let shared = writes(|| {
            let found = devices.dispatch::<Port, _>(0x13, 0, |hit| hit.handler().to_owned());
            assert_eq!(found, one());
        });
        let slots = cfg!(feature = "slot-cell");
        assert_eq!((cold > 0, shared), (slots, if slots { 2 } else { 0 }));
    }
}
