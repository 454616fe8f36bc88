//! [`Vcpu`]: a vCPU's own handle of the registry.

use core::{fmt, ops::Deref};

use crate::{
    bus::{Bus, Family, Handlers, PerBus},
    cache::Cache,
    miss::Miss,
    registry::{Hit, Registry, miss},
    sync::mutant,
};

/// A vCPU's own handle of a registry: it keeps the tables from one dispatch to the next, and
/// remembers where in them it found the devices.
///
/// It dispatches as [`Registry::dispatch`] does, but for these differences:
///
/// - It takes `&mut self`: one vCPU uses it at a time.
/// - It is quicker. A dispatch looks with one load whether the tables were replaced, and if they were
///   not and a device answers, it writes no memory but the handle's own.
/// - It *holds* the tables until it notices that they were replaced: at the next dispatch, at
///   [`refresh`](Self::refresh), or at [`park`](Self::park). Until then the devices in them live,
///   even those that the registry no longer lists.
///
/// A vCPU that leaves its run loop, or sleeps for long, parks its handle. A vCPU that should let go
/// of a removed device is kicked out of its guest, and refreshes or parks.
///
/// `V` is anything that leads to the registry, always the same: a reference, or an `Arc`, beside which
/// the handle can live in a vCPU's struct.
///
/// # Memory ordering
///
/// As for the registry: when a method that changes the registry has returned, the dispatches of
/// every vCPU that learns of it by any synchronisation are by the new tables, with or without a
/// `refresh`. Before it returns, a vCPU that has seen the change by the registry itself may find
/// that its handle still goes by the old tables, but for one thing: no access is a miss by old ones.
pub struct Vcpu<V: Deref<Target: RegistryLike>> {
    cache: Cache<<V::Target as RegistryLike>::Handlers>,
    counters: PerBus<CountersOf>,
    registry: V,
}

/// A [`Registry`], as the target of a pointer.
pub trait RegistryLike: sealed::RegistryLike {
    /// What is registered there.
    type Handlers: Handlers;
}

impl<F: Handlers> RegistryLike for Registry<F> {
    type Handlers = F;
}

mod sealed {
    pub trait RegistryLike {}

    impl<F: super::Handlers> RegistryLike for super::Registry<F> {}
}

/// What a handle has done on one bus. An access that finds the devices withdrawn
/// is not counted: it is made again when they are back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusCounters {
    /// Accesses whose device was found where it was remembered.
    pub hits: u64,
    /// Accesses whose device was searched for.
    pub searches: u64,
    /// Accesses that no device answered.
    pub misses: u64,
    /// Accesses that found the tables replaced, or the handle parked.
    pub refreshes: u64,
}

/// The family of counters.
struct CountersOf;

impl Family for CountersOf {
    type Of<K: Bus> = BusCounters;
}

impl<F: Handlers> Registry<F> {
    /// A vCPU's own handle of this registry. [`Vcpu::new`] makes one beside an `Arc`.
    pub fn vcpu(&self) -> Vcpu<&Self> {
        Vcpu::new(self)
    }
}

impl<F: Handlers, V: Deref<Target = Registry<F>>> Vcpu<V> {
    /// A handle of the registry that `registry` leads to. Parked: it holds no tables yet.
    ///
    /// Allocates 97 KiB. From then on the handle allocates nothing of its own.
    pub fn new(registry: V) -> Self {
        Self {
            cache: Cache::of(&registry.tables),
            counters: PerBus {
                mmio: BusCounters::default(),
                port: BusCounters::default(),
                sys_reg: BusCounters::default(),
            },
            registry,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &V {
        &self.registry
    }

    /// What the handle has done on bus `K` since it was made.
    pub fn counters<K: Bus>(&self) -> BusCounters {
        *K::of(&self.counters)
    }

    /// Whether the handle holds no tables.
    pub fn is_parked(&self) -> bool {
        self.cache.is_parked()
    }

    /// Lets go of tables that were replaced, and holds the current ones.
    pub fn refresh(&mut self) {
        if !self.cache.is_current(&self.registry.tables) {
            self.cache.renew(&self.registry.tables);
        }
    }

    /// Lets go of the tables. The next dispatch, or [`refresh`](Self::refresh), takes hold again.
    pub fn park(&mut self) {
        self.cache.park();
    }

    /// Has `enter` call the one device that owns all of `at ..= at + beyond` on bus `K`, and gives
    /// what it gives.
    ///
    /// # Errors
    ///
    /// [`Miss`], if there is no such device; `enter` is not called then.
    #[inline(always)]
    pub fn dispatch<K: Bus, T>(
        &mut self,
        at: u64,
        beyond: u64,
        enter: impl FnOnce(Hit<'_, F, K>) -> T,
    ) -> Result<T, Miss> {
        self.dispatch_with(at, beyond, |found| {
            found.map(enter).map_err(|(_, miss)| miss)
        })
    }

    /// As [`dispatch`](Self::dispatch), but has `answer` answer a miss too, and so makes no
    /// [`Result`]: for those who count nanoseconds. It may use the handle then.
    #[inline(always)]
    pub fn dispatch_with<K: Bus, T>(
        &mut self,
        at: u64,
        beyond: u64,
        answer: impl FnOnce(Result<Hit<'_, F, K>, (&mut Self, Miss)>) -> T,
    ) -> T {
        if let Some(row) = self.cache.recall::<K>(at)
            && row.span.holds(at, beyond)
        {
            K::of_mut(&mut self.counters).hits += 1;
            let tables = self.cache.tables();
            return answer(Ok(Hit { row, tables }));
        }
        self.search_and_answer(at, beyond, answer)
    }

    /// The same for an access whose device is not remembered.
    #[cold]
    #[inline(never)]
    fn search_and_answer<K: Bus, T>(
        &mut self,
        at: u64,
        beyond: u64,
        answer: impl FnOnce(Result<Hit<'_, F, K>, (&mut Self, Miss)>) -> T,
    ) -> T {
        match self.search(at, beyond) {
            Ok(hit) => answer(Ok(hit)),
            Err(miss) => answer(Err((self, miss))),
        }
    }

    /// Whom an access finds whose device is not remembered.
    #[inline(always)]
    fn search<K: Bus>(&mut self, at: u64, beyond: u64) -> Result<Hit<'_, F, K>, Miss> {
        let cell = &self.registry.tables;
        let mut refreshed = self.cache.is_outdated(cell);
        if refreshed {
            self.cache.renew(cell);
        }
        let mut found = self.cache.search::<K>(at, beyond);
        // What the version tells is not enough for a miss: a vCPU may have seen a device by other ways
        // before the version tells of it, and must not miss it then.
        if found.is_none() && !mutant("handle-misses") && !self.cache.is_current(cell) {
            refreshed = true;
            self.cache.renew(cell);
            found = self.cache.search::<K>(at, beyond);
        }
        let tables = self.cache.tables();
        if tables.withdrawal().is_some() {
            // Nobody knows yet what becomes of the access: it will come again.
            return Err(Miss::Withdrawn);
        }
        let counters = K::of_mut(&mut self.counters);
        counters.refreshes += u64::from(refreshed);
        match found {
            Some(index) => {
                counters.searches += 1;
                let row = &tables.of::<K>().rows()[index];
                Ok(Hit { row, tables })
            }
            None => {
                counters.misses += 1;
                Err(miss::<F, K>(tables, at))
            }
        }
    }
}

impl<F: Handlers, V: Deref<Target = Registry<F>>> fmt::Debug for Vcpu<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("parked", &self.cache.is_parked())
            .field("mmio", &self.counters.mmio)
            .field("port", &self.counters.port)
            .field("sys_reg", &self.counters.sys_reg)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        bus::{Mmio, Port, SysReg},
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
        vcpu.dispatch::<Port, _>(at, beyond, |hit| hit.handler().to_owned())
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
    fn counts_what_it_does_on_each_bus() {
        let devices = registry();
        let mut vcpu = devices.vcpu();
        assert_eq!(vcpu.counters::<Port>(), BusCounters::default());
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(0, 1, 0, 1));
        assert_eq!(read(&mut vcpu, 0x10, 3), one());
        assert_eq!(vcpu.counters::<Port>(), counted(1, 1, 0, 1));
        assert_eq!(read(&mut vcpu, 0x18, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(1, 2, 0, 1));
        assert_eq!(read(&mut vcpu, 0x20, 0), Err(Miss::Nobody));
        assert_eq!(vcpu.counters::<Port>(), counted(1, 2, 1, 1));
        devices.add::<Port>(named("two"), span(0x20, 0x20)).unwrap();
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        assert_eq!(vcpu.counters::<Port>(), counted(1, 3, 1, 2));
        assert_eq!(vcpu.counters::<Mmio>(), BusCounters::default());
        let missed = vcpu.dispatch::<SysReg, _>(0x10, 0, |_| ());
        assert_eq!(missed, Err(Miss::Nobody));
        assert_eq!(vcpu.counters::<SysReg>(), counted(0, 0, 1, 0));
    }

    #[test]
    fn what_runs_past_the_end_of_a_span_is_a_miss_remembered_or_not() {
        let devices = registry();
        devices.add::<Port>(named("two"), span(0x20, 0x2f)).unwrap();
        let mut vcpu = devices.vcpu();
        let crosses = Err(Miss::Crosses(span(0x10, 0x1f)));
        assert_eq!(read(&mut vcpu, 0x1f, 1), crosses);
        assert_eq!(read(&mut vcpu, 0x1f, 0), one());
        assert_eq!(read(&mut vcpu, 0x1f, 1), crosses);
        assert_eq!(read(&mut vcpu, 0x1f, u64::MAX), crosses);
        assert_eq!(read(&mut vcpu, 0xf, 1), Err(Miss::Nobody));
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
        assert_eq!(read(&mut vcpu, 0x10, 0), Err(Miss::Nobody));
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
    fn a_refresh_lets_go_of_what_was_replaced() {
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
    fn goes_by_the_tables_of_a_change_that_has_returned() {
        let devices = registry();
        let mut vcpu = devices.vcpu();
        assert_eq!(read(&mut vcpu, 0x10, 0), one());
        let id = devices.find::<Port>(0x10).unwrap().0;
        let (from, to) = (span(0x10, 0x1f), span(0x18, 0x27));
        devices.move_to::<Port>(id, from, to).unwrap();
        assert_eq!(read(&mut vcpu, 0x10, 0), Err(Miss::Nobody));
        assert_eq!(read(&mut vcpu, 0x27, 0), one());
        drop(devices.remove(id).unwrap());
        assert_eq!(read(&mut vcpu, 0x27, 0), Err(Miss::Nobody));
    }

    #[test]
    fn can_live_beside_its_registry() {
        let devices = Arc::new(registry());
        let mut vcpu = Vcpu::new(devices.clone());
        let found = vcpu.dispatch::<Port, _>(0x10, 0, |hit| *hit.tag());
        assert_eq!(found, Ok("one"));
        assert!(Arc::ptr_eq(vcpu.registry(), &devices));
        drop(devices);
        let found = vcpu.dispatch::<Port, _>(0x10, 0, |hit| *hit.tag());
        assert_eq!(found, Ok("one"));
    }

    /// Of what the registry shares. The handle's own memory has no atomics, and those of the hosted
    /// cell are arc-swap's: `.ci/stores.sh` traces every store on either.
    #[test]
    fn a_warm_dispatch_writes_nothing_shared() {
        let devices = registry();
        let mut vcpu = devices.vcpu();
        let mut read = || assert_eq!(read(&mut vcpu, 0x13, 0), one());
        let (cold, warm) = (writes(&mut read), writes(&mut read));
        assert_eq!(warm, 0);
        // Without the handle: a slot claimed and cleared. So counting counts.
        let shared = writes(|| {
            let found = devices.dispatch::<Port, _>(0x13, 0, |hit| hit.handler().to_owned());
            assert_eq!(found, one());
        });
        let slots = cfg!(feature = "slot-cell");
        assert_eq!((cold > 0, shared), (slots, if slots { 2 } else { 0 }));
    }
}
