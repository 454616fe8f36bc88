//! The listener: its calls, their order, and its refusals.

mod common;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use busmap::{
    Bus, BusId, Device, DeviceId, Difference, Direction, Handlers, Listener, Mapping, Miss, Mmio,
    Port, Refusal, Registry, Span, SysReg, Veto,
};
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_obj_safe};

use self::common::{Devices, Fns, Handler, read, reads_as, rounds, span, while_changing};

assert_obj_safe!(Listener);
assert_impl_all!(Difference: Send, Sync, Clone, Eq, std::fmt::Debug);
assert_impl_all!(Veto: Send, Sync, Copy, Eq, std::error::Error);
assert_impl_all!(Mapping: Send, Sync, Copy, Eq, std::hash::Hash, std::fmt::Display);

/// Handlers that are unwind-safe, so that only the registry's own parts decide whether it is.
enum Plain {}

impl Handlers for Plain {
    type Mmio = u8;
    type Port = u8;
    type SysReg = u8;
    type Tag = ();
}

assert_impl_all!(Registry<Plain>: Send, Sync, std::panic::UnwindSafe, std::panic::RefUnwindSafe);

enum Local {}

impl Handlers for Local {
    type Mmio = std::cell::Cell<u8>;
    type Port = u8;
    type SysReg = u8;
    type Tag = ();
}

assert_not_impl_any!(Registry<Local>: Send, Sync);

/// The argument of a call of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reported {
    Before(Difference),
    After(Difference),
}

/// Records its calls, and updates a list of all mappings from them.
#[derive(Default)]
struct Scribe {
    reported: Mutex<Vec<Reported>>,
    mappings: Mutex<BTreeSet<(DeviceId, u8, u64, u64)>>,
    vetoes: AtomicBool,
}

const VETO: Veto = Veto::new("not today").with_code(7);

impl Listener for Scribe {
    fn before(&self, difference: &Difference) -> Result<(), Veto> {
        if self.vetoes.load(SeqCst) {
            return Err(VETO);
        }
        self.reported
            .lock()
            .unwrap()
            .push(Reported::Before(difference.clone()));
        Ok(())
    }

    fn after(&self, difference: &Difference) {
        let mut mappings = self.mappings.lock().unwrap();
        for old in difference.unmapped() {
            assert!(mappings.remove(&key(old)), "{old} was not there");
        }
        for new in difference.mapped() {
            assert!(mappings.insert(key(new)), "{new} is there already");
        }
        self.reported
            .lock()
            .unwrap()
            .push(Reported::After(difference.clone()));
    }
}

impl Scribe {
    fn reported(&self) -> Vec<Reported> {
        mem::take(&mut self.reported.lock().unwrap())
    }

    /// The only difference since the last check, which `before` and `after` both got.
    fn difference(&self) -> (Vec<Mapping>, Vec<Mapping>) {
        match &self.reported()[..] {
            [Reported::Before(before), Reported::After(after)] => {
                assert_eq!(before, after);
                (before.unmapped().to_vec(), before.mapped().to_vec())
            }
            reported => panic!("not one change: {reported:?}"),
        }
    }

    /// Checks that the list equals the registry's mappings.
    fn agrees_with(&self, devices: &Devices) {
        let mut all = BTreeSet::new();
        list::<Mmio>(devices, &mut all);
        list::<Port>(devices, &mut all);
        list::<SysReg>(devices, &mut all);
        assert_eq!(*self.mappings.lock().unwrap(), all);
    }
}

fn key(mapping: &Mapping) -> (DeviceId, u8, u64, u64) {
    let Mapping { id, bus, span } = *mapping;
    (id, bus as u8, span.first(), span.last())
}

fn list<K: Bus>(devices: &Devices, all: &mut BTreeSet<(DeviceId, u8, u64, u64)>) {
    devices.for_each::<K>(|hit| {
        let (id, bus, span) = (hit.id(), K::ID, hit.span());
        all.insert(key(&Mapping { id, bus, span }));
    });
}

fn on<K: Bus>(id: DeviceId, first: u64, last: u64) -> Mapping {
    let (bus, span) = (K::ID, span(first, last));
    Mapping { id, bus, span }
}

fn reported() -> (Devices, Arc<Scribe>) {
    let scribe = Arc::<Scribe>::default();
    (Devices::new().with_listener(scribe.clone()), scribe)
}

/// A device on all buses.
fn on_all(value: u64) -> Device<Fns> {
    let handler: Arc<Handler> = Arc::new(move |_| value);
    reads_as(value).on::<SysReg>(handler)
}

#[test]
fn each_kind_of_change_is_reported_exactly() {
    let (devices, scribe) = reported();
    let id = devices.add::<Port>(on_all(1), span(0, 7)).unwrap();
    assert_eq!(scribe.difference(), (vec![], vec![on::<Port>(id, 0, 7)]));
    devices.map::<SysReg>(id, span(9, 9)).unwrap();
    assert_eq!(scribe.difference(), (vec![], vec![on::<SysReg>(id, 9, 9)]));
    devices.map::<Mmio>(id, span(0x10, 0x1f)).unwrap();
    assert_eq!(scribe.difference().1, [on::<Mmio>(id, 0x10, 0x1f)]);
    // To a span that overlaps the old one.
    devices
        .move_to::<Port>(id, span(0, 7), span(4, 11))
        .unwrap();
    let moved = (vec![on::<Port>(id, 0, 7)], vec![on::<Port>(id, 4, 11)]);
    assert_eq!(scribe.difference(), moved);
    devices.map::<Port>(id, span(0x20, 0x2f)).unwrap();
    scribe.reported();
    // One of the two spans stays.
    devices.remap::<Port>(id, span(4, 11)).unwrap();
    assert_eq!(
        scribe.difference(),
        (vec![on::<Port>(id, 0x20, 0x2f)], vec![])
    );
    // The span grows.
    devices.remap::<Port>(id, span(4, 12)).unwrap();
    let grown = (vec![on::<Port>(id, 4, 11)], vec![on::<Port>(id, 4, 12)]);
    assert_eq!(scribe.difference(), grown);
    devices.unmap::<SysReg>(id, span(9, 9)).unwrap();
    assert_eq!(scribe.difference(), (vec![on::<SysReg>(id, 9, 9)], vec![]));
    scribe.agrees_with(&devices);
    drop(devices.remove(id).unwrap());
    let gone = vec![on::<Mmio>(id, 0x10, 0x1f), on::<Port>(id, 4, 12)];
    assert_eq!(scribe.difference(), (gone, vec![]));
    scribe.agrees_with(&devices);
}

#[test]
fn a_batch_is_one_difference_of_its_result() {
    let (devices, scribe) = reported();
    let a = devices.add::<Port>(on_all(1), span(0, 7)).unwrap();
    let b = devices.add::<Port>(on_all(2), span(8, 15)).unwrap();
    let c = devices.add::<Mmio>(on_all(3), span(0, 0xff)).unwrap();
    scribe.reported();
    // Two devices swap, one is removed and one added, on two buses. A span is mapped and unmapped
    // in the batch.
    let (d, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            batch.move_to::<Port>(a, span(0, 7), span(8, 15))?;
            batch.move_to::<Port>(b, span(8, 15), span(0, 7))?;
            batch.map::<Port>(b, span(0x40, 0x40))?;
            batch.unmap::<Port>(b, span(0x40, 0x40))?;
            batch.remove(c)?;
            batch.add_at::<Mmio>(on_all(4), span(0x80, 0x8f))
        })
        .unwrap();
    assert_eq!(removed.len(), 1);
    let unmapped = vec![
        on::<Mmio>(c, 0, 0xff),
        on::<Port>(a, 0, 7),
        on::<Port>(b, 8, 15),
    ];
    let mapped = vec![
        on::<Mmio>(d, 0x80, 0x8f),
        on::<Port>(b, 0, 7),
        on::<Port>(a, 8, 15),
    ];
    assert_eq!(scribe.difference(), (unmapped, mapped));
    scribe.agrees_with(&devices);
}

#[test]
fn a_change_that_alters_no_span_is_not_reported() {
    let (devices, scribe) = reported();
    let id = devices.add::<Port>(on_all(1), span(0, 7)).unwrap();
    scribe.reported();
    scribe.vetoes.store(true, SeqCst);
    devices.remap::<Port>(id, span(0, 7)).unwrap();
    devices.move_to::<Port>(id, span(0, 7), span(0, 7)).unwrap();
    let (bare, _) = devices
        .update(|batch| {
            batch.unmap::<Port>(id, span(0, 7))?;
            batch.map::<Port>(id, span(0, 7))?;
            batch.add(on_all(2))
        })
        .unwrap();
    drop(devices.remove(bare).unwrap());
    assert_eq!(scribe.reported(), []);
    // No call for a change that is refused for another reason.
    let overlap = devices.add::<Port>(on_all(2), span(7, 8)).unwrap_err();
    assert!(matches!(overlap.refusal, Refusal::Overlap { .. }));
    let unknown = devices.remove(bare).unwrap_err();
    assert!(matches!(unknown, Refusal::Unknown { .. }));
    assert_eq!(scribe.reported(), []);
}

#[test]
fn a_veto_changes_nothing_and_gives_the_device_back() {
    let (devices, scribe) = reported();
    let id = devices.add::<Port>(on_all(1), span(0, 7)).unwrap();
    scribe.reported();
    scribe.vetoes.store(true, SeqCst);
    let vetoed = Some(Refusal::Vetoed(VETO));
    let handler: Arc<Handler> = Arc::new(|_| 2);
    let device = Device::new("late").on::<Port>(handler.clone());
    let refused = devices.add::<Port>(device, span(8, 9)).unwrap_err();
    assert_eq!(Some(refused.refusal), vetoed);
    assert_eq!(
        refused.to_string(),
        "device not added: the registry's listener refuses the change: not today (code 7)"
    );
    assert_eq!(refused.device.into_tag(), "late");
    assert_eq!(Arc::strong_count(&handler), 1, "the registry has kept it");
    assert_eq!(devices.remove(id).err(), vetoed);
    assert_eq!(devices.map::<Port>(id, span(8, 8)).err(), vetoed);
    assert_eq!(devices.unmap::<Port>(id, span(0, 7)).err(), vetoed);
    assert_eq!(devices.remap::<Port>(id, span(1, 1)).err(), vetoed);
    let moved = devices.move_to::<Port>(id, span(0, 7), span(1, 1));
    assert_eq!(moved.err(), vetoed);
    let updated = devices.update(|batch| batch.remove(id));
    assert_eq!(updated.err(), vetoed);
    assert_eq!(
        (read(&devices, 0), read(&devices, 8)),
        (Ok(1), Err(Miss::Unmapped))
    );
    assert_eq!(scribe.reported(), []);
    // The listener permits changes again.
    scribe.vetoes.store(false, SeqCst);
    let device = refused_again(&devices, &handler);
    assert!(devices.add::<Port>(device, span(8, 9)).is_ok());
    scribe.agrees_with(&devices);
}

/// A device with the handler, which a refusal for an overlap has returned.
fn refused_again(devices: &Devices, handler: &Arc<Handler>) -> Device<Fns> {
    let device = Device::new("late").on::<Port>(handler.clone());
    let refused = devices.add::<Port>(device, span(0, 0)).unwrap_err();
    assert!(matches!(refused.refusal, Refusal::Overlap { .. }));
    refused.device
}

/// Calls the two closures.
struct Calls<B, A> {
    before: B,
    after: A,
}

impl<B, A> Listener for Calls<B, A>
where
    B: Fn(&Difference) -> Result<(), Veto> + Send + Sync,
    A: Fn(&Difference) + Send + Sync,
{
    fn before(&self, difference: &Difference) -> Result<(), Veto> {
        (self.before)(difference)
    }

    fn after(&self, difference: &Difference) {
        (self.after)(difference);
    }
}

/// A registry with such a listener, which gets the registry.
fn calls(
    before: impl Fn(&Devices, &Difference) -> Result<(), Veto> + Send + Sync + 'static,
    after: impl Fn(&Devices, &Difference) + Send + Sync + 'static,
) -> Arc<Devices> {
    Arc::new_cyclic(|devices: &Weak<Devices>| {
        let ours = || {
            let devices = devices.clone();
            move || devices.upgrade().expect("a change is being made")
        };
        let (now, then) = (ours(), ours());
        let listener = Calls {
            before: move |difference: &_| before(&now(), difference),
            after: move |difference: &_| after(&then(), difference),
        };
        Devices::new().with_listener(Arc::new(listener))
    })
}

#[test]
fn before_sees_the_registry_without_the_change_and_after_with_it() {
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let at = |difference: &Difference| match (difference.unmapped(), difference.mapped()) {
        ([old], [new]) => (old.span.first(), new.span.first()),
        _ => panic!("not a move: {difference:?}"),
    };
    let is_move = |difference: &Difference| !difference.unmapped().is_empty();
    let devices = calls(
        move |devices, difference| {
            if is_move(difference) {
                let (old, new) = at(difference);
                assert_eq!(
                    (read(devices, old), read(devices, new)),
                    (Ok(1), Err(Miss::Unmapped))
                );
            }
            Ok(())
        },
        move |devices, difference| {
            if is_move(difference) {
                let (old, new) = at(difference);
                assert_eq!(
                    (read(devices, old), read(devices, new)),
                    (Err(Miss::Unmapped), Ok(1))
                );
                let mut vcpu = devices.vcpu();
                assert!(
                    vcpu.dispatch::<Port, _>(Direction::Write, new, 0, |_| ())
                        .is_ok()
                );
                count.fetch_add(1, SeqCst);
            }
        },
    );
    let id = devices.add::<Port>(reads_as(1), span(0, 7)).unwrap();
    devices
        .move_to::<Port>(id, span(0, 7), span(8, 15))
        .unwrap();
    assert_eq!(seen.load(SeqCst), 1);
}

#[test]
fn a_change_from_inside_the_listener_is_refused() {
    let refusals = Arc::new(Mutex::new(Vec::new()));
    let change = {
        let refusals = refusals.clone();
        move |devices: &Devices| {
            let mut refusals = refusals.lock().unwrap();
            let refused = devices
                .add::<Port>(reads_as(9), span(0x90, 0x90))
                .unwrap_err();
            refusals.push(refused.refusal);
            // Also refused from inside a handler that the listener calls.
            if let Ok(value) = read(devices, 0x50) {
                assert_eq!(value, 1);
                refusals.push(Refusal::Reentrant);
            }
        }
    };
    let too = change.clone();
    let devices = calls(
        move |devices, _| {
            change(devices);
            Ok(())
        },
        move |devices, _| too(devices),
    );
    let ours = Arc::downgrade(&devices);
    let moves: Arc<Handler> = Arc::new(move |_| {
        let devices = ours.upgrade().unwrap();
        let moved = devices.add::<Port>(reads_as(9), span(0x91, 0x91));
        moved
            .is_err_and(|refused| refused.refusal == Refusal::Reentrant)
            .into()
    });
    let device = Device::new("moves").on::<Port>(moves);
    devices.add::<Port>(device, span(0x50, 0x50)).unwrap();
    // In `before` the device is not there yet.
    assert_eq!(*refusals.lock().unwrap(), [Refusal::Reentrant; 3]);
    assert_eq!(read(&devices, 0x90), Err(Miss::Unmapped));
    devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    assert_eq!(*refusals.lock().unwrap(), [Refusal::Reentrant; 7]);
    // Outside the listener the handler may make a change.
    assert_eq!(read(&devices, 0x50), Ok(0));
    assert_eq!(read(&devices, 0x91), Ok(9));
}

/// Stops in `before` when port 1 is mapped, until the sender lets it continue.
fn stops() -> (Arc<Devices>, Receiver<()>, Sender<()>) {
    let (stopped, has_stopped) = channel();
    let (go_on, may_go_on) = channel();
    let gate = Mutex::new((stopped, may_go_on));
    let devices = calls(
        move |_, difference| {
            if difference.mapped().iter().any(|new| new.span == span(1, 1)) {
                let gate = gate.lock().unwrap();
                gate.0.send(()).unwrap();
                gate.1.recv().unwrap();
            }
            Ok(())
        },
        |_, _| (),
    );
    (devices, has_stopped, go_on)
}

#[test]
fn readers_do_not_wait_for_a_listener_and_a_handler_that_moves_its_device_does() {
    let (devices, has_stopped, go_on) = stops();
    let id = Arc::new(OnceLock::new());
    let (ours, own) = (Arc::downgrade(&devices), id.clone());
    let moves: Arc<Handler> = Arc::new(move |_| {
        let devices = ours.upgrade().unwrap();
        let moved = devices.remap::<Port>(*own.get().unwrap(), span(0x20, 0x20));
        moved.is_ok().into()
    });
    let device = Device::new("moves").on::<Port>(moves);
    id.set(devices.add::<Port>(device, span(0x10, 0x10)).unwrap())
        .unwrap();
    devices.add::<Port>(reads_as(3), span(3, 3)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| devices.add::<Port>(reads_as(1), span(1, 1)).unwrap());
        has_stopped.recv().unwrap();
        // Dispatches and lookups continue, also through a handle.
        let mut vcpu = devices.vcpu();
        assert_eq!(read(&devices, 3), Ok(3));
        assert_eq!(
            vcpu.dispatch::<Port, _>(Direction::Read, 3, 0, |hit| *hit.tag()),
            Ok("device")
        );
        assert!(devices.find::<Port>(3).is_some());
        let (entered, has_entered) = channel();
        let mover = scope.spawn({
            let devices = &devices;
            move || {
                entered.send(()).unwrap();
                read(devices, 0x10)
            }
        });
        has_entered.recv().unwrap();
        assert_eq!(read(&devices, 1), Err(Miss::Unmapped));
        assert!(devices.find::<Port>(0x20).is_none(), "it has not waited");
        go_on.send(()).unwrap();
        assert_eq!(mover.join().unwrap(), Ok(1));
    });
    assert_eq!(read(&devices, 1), Ok(1));
    assert!(devices.find::<Port>(0x20).is_some());
}

#[test]
fn a_listener_that_panics_leaves_the_registry_usable() {
    let devices = calls(
        |_, difference| {
            let is_bad = difference.mapped().iter().any(|new| new.span.first() == 1);
            assert!(!is_bad, "before");
            Ok(())
        },
        |_, difference| {
            let is_bad = difference.mapped().iter().any(|new| new.span.first() == 2);
            assert!(!is_bad, "after");
        },
    );
    let unwinds = |port| {
        let add = || devices.add::<Port>(reads_as(port), span(port, port));
        catch_unwind(AssertUnwindSafe(add)).is_err()
    };
    assert!(unwinds(1));
    assert_eq!(read(&devices, 1), Err(Miss::Unmapped), "it was published");
    assert!(unwinds(2));
    assert_eq!(read(&devices, 2), Ok(2), "it was not published");
    assert!(!unwinds(3));
    assert_eq!(read(&devices, 3), Ok(3));
    // The turns of the changes that unwound have ended: other threads can make changes.
    thread::scope(|scope| {
        let change = || devices.add::<Port>(reads_as(4), span(4, 4)).is_ok();
        assert!(scope.spawn(change).join().unwrap());
    });
}

#[test]
fn changes_of_many_threads_are_reported_one_at_a_time() {
    const THREADS: u64 = 4;
    let (devices, scribe) = reported();
    let change = |mine: u64| {
        let (here, there) = (
            span(0x10 * mine, 0x10 * mine + 3),
            span(0x10 * mine + 8, 0x10 * mine + 9),
        );
        for _ in 0..rounds(500) {
            let id = devices.add::<Port>(on_all(mine), here).unwrap();
            devices.move_to::<Port>(id, here, there).unwrap();
            // All threads want this span.
            let shared = devices.map::<Mmio>(id, span(0, 0));
            assert!(matches!(shared, Ok(()) | Err(Refusal::Overlap { .. })));
            drop(devices.remove(id).unwrap());
        }
    };
    devices.add::<Port>(reads_as(7), span(0xf0, 0xf0)).unwrap();
    let dispatch = || assert_eq!(read(&devices, 0xf0), Ok(7));
    while_changing(dispatch, || {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || change(thread));
            }
        });
    });
    scribe.agrees_with(&devices);
    let reported = scribe.reported();
    assert!(reported.len() as u64 >= 2 * 3 * THREADS * rounds(500));
    for pair in reported.chunks(2) {
        let same = matches!(pair, [Reported::Before(b), Reported::After(a)] if a == b);
        assert!(same, "not a pair: {pair:?}");
    }
}

/// xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn span(&mut self) -> Span {
        let first = self.below(32);
        span(first, first + self.below(6))
    }

    fn change(&mut self, devices: &Devices, ids: &[DeviceId]) -> Result<Option<DeviceId>, Refusal> {
        let id = ids[self.below(ids.len() as u64) as usize];
        match self.below(8) {
            0 => return Ok(Some(devices.add::<Port>(on_all(1), self.span())?)),
            1 => return Ok(Some(devices.add::<SysReg>(on_all(1), self.span())?)),
            2 => drop(devices.remove(id)?),
            3 => devices.map::<Mmio>(id, self.span())?,
            4 => devices.map::<Port>(id, self.span())?,
            5 => devices.remap::<Port>(id, self.span())?,
            _ => {
                let (added, _) = devices.update(|batch| {
                    for _ in 0..self.below(5) {
                        let id = ids[self.below(ids.len() as u64) as usize];
                        match self.below(4) {
                            0 => batch.remap::<Port>(id, self.span())?,
                            1 => batch.map::<Mmio>(id, self.span())?,
                            2 => batch.remove(id)?,
                            _ => batch.remap::<Mmio>(id, self.span())?,
                        }
                    }
                    batch.add_at::<Mmio>(on_all(2), self.span())
                })?;
                return Ok(Some(added));
            }
        }
        Ok(None)
    }
}

#[test]
fn a_list_kept_from_the_reported_differences_is_always_right() {
    let seed = RandomState::new().hash_one(0) | 1;
    println!("seed: {seed:#x}");
    let mut random = Random(seed);
    let (devices, scribe) = reported();
    let mut ids = vec![devices.add::<Port>(on_all(0), span(0, 0)).unwrap()];
    let mut made = 0;
    for round in 0..rounds(5_000) {
        scribe.vetoes.store(round % 7 == 0, SeqCst);
        let changed = random.change(&devices, &ids);
        made += u32::from(changed.is_ok());
        if let Ok(Some(id)) = changed {
            ids.push(id);
            // Older devices, most of which are removed, are no longer used.
            let old = ids.len().saturating_sub(12);
            ids.drain(..old);
        }
        scribe.agrees_with(&devices);
    }
    for reported in scribe.reported() {
        let (Reported::Before(difference) | Reported::After(difference)) = reported;
        assert!(!difference.is_empty());
        let kept = |old: &Mapping| difference.mapped().contains(old);
        assert!(!difference.unmapped().iter().any(kept));
    }
    assert!(made > 0);
}

#[test]
fn the_difference_between_withdrawn_and_restored_devices_is_reported() {
    let (mut devices, scribe) = reported();
    let one = devices.add::<Port>(on_all(1), span(0, 7)).unwrap();
    let two = devices.add::<Port>(on_all(2), span(8, 15)).unwrap();
    scribe.reported();
    // Restored unchanged: no call.
    let withdrawn = devices.withdraw();
    assert_eq!(devices.restore(&withdrawn), Ok(()));
    assert_eq!(scribe.reported(), []);
    // One is restored at another place, one is not restored.
    let withdrawn = devices.withdraw();
    assert_eq!(scribe.reported(), []);
    let moved = withdrawn[0].replaced(on_all(3), vec![(BusId::Mmio, span(0, 7))]);
    scribe.vetoes.store(true, SeqCst);
    let vetoed = devices.restore(std::slice::from_ref(&moved));
    assert_eq!(vetoed, Err(Refusal::Vetoed(VETO)));
    assert_eq!(read(&devices, 8), Err(Miss::Withdrawn));
    scribe.vetoes.store(false, SeqCst);
    devices.restore(&[moved]).unwrap();
    let unmapped = vec![on::<Port>(one, 0, 7), on::<Port>(two, 8, 15)];
    assert_eq!(scribe.difference(), (unmapped, vec![on::<Mmio>(one, 0, 7)]));
    scribe.agrees_with(&devices);
    // The second call restores nothing, and reports nothing.
    devices.restore(&withdrawn).unwrap();
    assert_eq!(scribe.reported(), []);
}

#[test]
fn a_later_listener_replaces_an_earlier_one() {
    let (devices, first) = reported();
    let id = devices.add::<Port>(on_all(1), span(0, 7)).unwrap();
    first.reported();
    let second = Arc::<Scribe>::default();
    let devices = devices.with_listener(second.clone());
    devices.map::<Mmio>(id, span(0, 7)).unwrap();
    assert_eq!(first.reported(), []);
    assert_eq!(Arc::strong_count(&first), 1);
    assert_eq!(second.difference(), (vec![], vec![on::<Mmio>(id, 0, 7)]));
    drop(devices);
    assert_eq!(second.reported(), []);
    assert_eq!(Arc::strong_count(&second), 1);
}

/// A device's destructor runs when the turn is over.
#[test]
fn a_destructor_may_change_the_registry() {
    struct Leaves(Weak<Devices>, Arc<AtomicBool>);

    impl Drop for Leaves {
        fn drop(&mut self) {
            if let Some(devices) = self.0.upgrade() {
                devices.add::<Port>(reads_as(2), span(2, 2)).unwrap();
                self.1.store(true, SeqCst);
            }
        }
    }

    let devices = calls(|_, _| Ok(()), |_, _| ());
    let dropped = Arc::new(AtomicBool::new(false));
    let leaves = Leaves(Arc::downgrade(&devices), dropped.clone());
    let handler: Arc<Handler> = Arc::new(move |_| leaves.0.strong_count() as u64);
    let device = Device::new("leaves").on::<Port>(handler);
    let id = devices.add::<Port>(device, span(1, 1)).unwrap();
    drop(devices.remove(id).unwrap());
    devices.reclaim();
    assert!(dropped.load(SeqCst));
    assert_eq!(read(&devices, 2), Ok(2));
}
