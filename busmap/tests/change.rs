//! Changes: one by one, in batches, from inside handlers, and on many threads at once.

mod common;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use busmap::{
    Batch, BusId, Device, DeviceId, Direction, Miss, Mmio, Port, Refusal, Refused, Registry, Span,
    Vcpu,
};

use self::common::{Devices, Fns, Handler, read, reads_as, rounds, span, while_changing};

#[test]
fn a_device_that_is_refused_is_given_back() {
    let devices = Devices::new();
    let owner = devices.add::<Port>(reads_as(1), span(0, 7)).unwrap();
    let handler: Arc<Handler> = Arc::new(|_| 2);
    let device = || Device::new("late").on::<Port>(handler.clone());
    let Refused { device, refusal } = devices.add::<Port>(device(), span(7, 8)).unwrap_err();
    let (wanted, owned) = (span(7, 8), span(0, 7));
    let overlap = Refusal::Overlap {
        bus: BusId::Port,
        wanted,
        owner,
        owned,
    };
    assert_eq!(refusal, overlap);
    assert_eq!(
        refusal.to_string(),
        "on bus port, 0x7..=0x8 overlaps 0x0..=0x7 of device #1"
    );
    assert_eq!(Arc::strong_count(&handler), 2, "the registry has kept it");
    let Refused { device, refusal } = devices.add::<Mmio>(device, span(0, 0)).unwrap_err();
    assert!(matches!(
        refusal,
        Refusal::NoHandler {
            bus: BusId::Mmio,
            ..
        }
    ));
    assert!(devices.add::<Port>(device, span(8, 8)).is_ok());
    assert_eq!(read(&devices, 8), Ok(2));
}

#[test]
fn a_batch_that_fails_or_unwinds_changes_nothing() {
    let devices = Devices::new();
    let id = devices.add::<Port>(reads_as(1), span(0, 7)).unwrap();
    let handler: Arc<Handler> = Arc::new(|_| 2);
    let record = |batch: &mut Batch<'_, Fns>| {
        batch.remove(id)?;
        let new = batch.add(Device::new("new").on::<Port>(handler.clone()))?;
        batch.map::<Port>(new, span(0, 7)).map(|()| new)
    };
    #[derive(Debug, PartialEq)]
    enum Failure {
        Own,
        Refused(Refusal),
    }
    impl From<Refusal> for Failure {
        fn from(refusal: Refusal) -> Self {
            Self::Refused(refusal)
        }
    }
    let failed = devices.update(|batch| {
        record(batch)?;
        Err::<(), _>(Failure::Own)
    });
    assert_eq!(failed.err(), Some(Failure::Own));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        devices.update(|batch| -> Result<(), Refusal> {
            record(batch)?;
            panic!("while it is recorded")
        })
    }));
    assert!(unwound.is_err());
    let mut dropped = devices.batch();
    let never = record(&mut dropped).unwrap();
    drop(dropped);
    let refused = devices.update(|batch| {
        record(batch)?;
        Ok::<_, Failure>(batch.remove(never)?)
    });
    let unknown = Failure::Refused(Refusal::Unknown {
        id: never,
        bus: None,
    });
    assert_eq!(refused.err(), Some(unknown));
    assert_eq!((read(&devices, 0), Arc::strong_count(&handler)), (Ok(1), 1));
    // The same record succeeds when it is published.
    let (new, removed) = devices.update(record).unwrap();
    assert!(removed.iter().map(|of| of.id()).eq([id]));
    assert_eq!(devices.find::<Port>(0).map(|(id, _)| id), Some(new));
}

#[test]
fn a_late_move_is_refused_and_a_remap_is_not() {
    let devices = Devices::new();
    let id = devices.add::<Port>(reads_as(1), span(0, 3)).unwrap();
    devices.move_to::<Port>(id, span(0, 3), span(2, 5)).unwrap();
    let bus = BusId::Port;
    let late = devices.move_to::<Port>(id, span(0, 3), span(8, 11));
    let from = Some(span(0, 3));
    assert_eq!(
        late,
        Err(Refusal::NotMapped {
            id,
            bus,
            span: from
        })
    );
    assert_eq!(
        (read(&devices, 5), read(&devices, 8)),
        (Ok(1), Err(Miss::Unmapped))
    );
    devices.remap::<Port>(id, span(8, 11)).unwrap();
    assert_eq!(
        (read(&devices, 5), read(&devices, 8)),
        (Err(Miss::Unmapped), Ok(1))
    );
    assert_eq!(devices.unmap::<Port>(id, span(8, 11)), Ok(()));
    let refused = devices.remap::<Port>(id, span(8, 11));
    assert_eq!(
        refused,
        Err(Refusal::NotMapped {
            id,
            bus,
            span: None
        })
    );
    assert_eq!(devices.map::<Port>(id, span(8, 11)), Ok(()));
}

/// A function of the PCI bus: the ports are its configuration, the window in memory is its BAR.
struct Function {
    registry: Weak<Devices>,
    id: OnceLock<DeviceId>,
}

const BAR: (u64, u64) = (0xe000_0000, 0xe000_0fff);

impl Function {
    /// Switches the decoding of memory on or off. Returns whether that was allowed.
    fn decode(&self, on: bool) -> bool {
        let devices = self.registry.upgrade().expect("the registry is in use");
        let id = *self.id.get().expect("it is registered");
        let bar = span(BAR.0, BAR.1);
        match on {
            true => devices.map::<Mmio>(id, bar).is_ok(),
            false => devices.unmap::<Mmio>(id, bar).is_ok(),
        }
    }
}

/// Devices with a function, whose BAR is off and whose command register is at port 0: a write of 1
/// switches it on.
fn with_a_function() -> (Arc<Devices>, DeviceId) {
    let devices = Arc::new(Devices::new());
    let function = Arc::new(Function {
        registry: Arc::downgrade(&devices),
        id: OnceLock::new(),
    });
    let command = function.clone();
    let command: Arc<Handler> = Arc::new(move |value| u64::from(command.decode(value == 1)));
    let bar: Arc<Handler> = Arc::new(|offset| offset);
    let device = Device::new("function").on::<Port>(command).on::<Mmio>(bar);
    let id = devices.add::<Port>(device, span(0, 0)).unwrap();
    function.id.set(id).unwrap();
    (devices, id)
}

fn command(devices: &Devices, value: u64) -> bool {
    devices.dispatch::<Port, _>(0, 0, |hit| hit.handler()(value)) == Ok(1)
}

fn bar(devices: &Devices, offset: u64) -> Result<u64, Miss> {
    devices.dispatch::<Mmio, _>(BAR.0 + offset, 0, |hit| {
        hit.handler()(BAR.0 + offset - hit.span().first())
    })
}

#[test]
fn a_bar_that_is_switched_off_and_on_keeps_its_id() {
    let (devices, id) = with_a_function();
    assert_eq!(bar(&devices, 0), Err(Miss::Unmapped));
    assert!(command(&devices, 1) && !command(&devices, 1), "twice on");
    assert_eq!(bar(&devices, 0xfff), Ok(0xfff));
    assert_eq!(devices.find::<Mmio>(BAR.0).map(|(id, _)| id), Some(id));
    assert!(command(&devices, 0) && !command(&devices, 0), "twice off");
    assert_eq!(bar(&devices, 0), Err(Miss::Unmapped));
    // The addresses are free for others now.
    let other = devices
        .add::<Mmio>(reads_as(9), span(BAR.1, BAR.1 + 1))
        .unwrap();
    assert!(!command(&devices, 1), "it overlaps the other");
    assert_eq!(bar(&devices, 0), Err(Miss::Unmapped));
    drop(devices.remove(other).unwrap());
    assert!(command(&devices, 1));
    assert_eq!(devices.find::<Mmio>(BAR.1).map(|(id, _)| id), Some(id));
}

#[test]
fn a_bar_is_switched_while_vcpus_read_it() {
    let (devices, id) = with_a_function();
    let mut vcpu = Vcpu::new(devices.clone());
    let watch = || {
        let at = BAR.0 + 0x123;
        let found = vcpu.dispatch::<Mmio, _>(Direction::Read, at, 3, |hit| {
            assert_eq!(hit.id(), id);
            hit.handler()(at - hit.span().first())
        });
        assert!(
            matches!(found, Ok(0x123) | Err(Miss::Unmapped)),
            "{found:?}"
        );
        // Its configuration is always mapped.
        let port = vcpu.dispatch::<Port, _>(Direction::Read, 0, 0, |hit| hit.id());
        assert_eq!(port, Ok(id));
    };
    while_changing(watch, || {
        for _ in 0..rounds(10_000) {
            assert!(command(&devices, 1));
            assert_eq!(bar(&devices, 0xfff), Ok(0xfff));
            assert!(command(&devices, 0));
            assert_eq!(bar(&devices, 0xfff), Err(Miss::Unmapped));
        }
    });
}

/// Two vCPUs move one device, each from inside its handler, and other threads look at both places.
#[test]
fn a_handler_that_moves_its_device_while_others_look() {
    let devices = Arc::new(Devices::new());
    let weak = Arc::downgrade(&devices);
    let handler: Arc<Handler> = Arc::new(move |offset| {
        let devices: Arc<Devices> = weak.upgrade().expect("the registry is in use");
        // The handler does not know the current place: both moves may be refused if the other vCPU
        // was faster.
        let (id, _) = devices.find::<Mmio>(0).expect("the configuration stays");
        let (a, b) = (span(0x10, 0x13), span(0x20, 0x23));
        let moved =
            [(a, b), (b, a)].map(|(from, to)| match devices.move_to::<Port>(id, from, to) {
                Ok(()) => true,
                Err(Refusal::NotMapped { .. }) => false,
                Err(other) => panic!("{other}"),
            });
        offset + u64::from(moved[0] || moved[1])
    });
    let device = Device::new("moves")
        .on::<Port>(handler.clone())
        .on::<Mmio>(handler);
    let id = devices.add::<Mmio>(device, span(0, 0)).unwrap();
    devices.map::<Port>(id, span(0x10, 0x13)).unwrap();
    let watch = || {
        let places: Vec<_> =
            devices.view(|view| view.spans::<Port>().map(|hit| hit.span()).collect());
        assert!(
            places == [span(0x10, 0x13)] || places == [span(0x20, 0x23)],
            "{places:?}"
        );
    };
    let moves = AtomicU64::new(0);
    while_changing(watch, || {
        let run = || {
            let mut vcpu = devices.vcpu();
            for _ in 0..rounds(5_000) {
                let moved = vcpu.dispatch::<Mmio, _>(Direction::Read, 0, 0, |hit| hit.handler()(0));
                moves.fetch_add(moved.unwrap(), SeqCst);
            }
        };
        thread::scope(|scope| {
            scope.spawn(run);
            scope.spawn(run);
        });
    });
    assert!(moves.into_inner() > 0, "it never moved");
}

#[test]
fn a_device_that_removes_itself() {
    let devices = Arc::new(Devices::new());
    let weak = Arc::downgrade(&devices);
    let removals = Arc::new(AtomicU64::new(0));
    let count = removals.clone();
    let handler: Arc<Handler> = Arc::new(move |_| {
        let devices: Arc<Devices> = weak.upgrade().expect("the registry is in use");
        let Some((id, _)) = devices.find::<Port>(0) else {
            return 0;
        };
        let removed = devices.remove(id).unwrap();
        assert!(!removed.is_quiescent(), "this very access is inside");
        // No unlimited wait here: it would never end.
        let removed = removed.wait(3).expect_err("this very access is inside");
        drop(removed);
        count.fetch_add(1, SeqCst)
    });
    let device = Device::new("ejected").on::<Port>(handler);
    devices.add::<Port>(device, span(0, 0)).unwrap();
    assert_eq!(read(&devices, 0), Ok(0));
    assert_eq!(read(&devices, 0), Err(Miss::Unmapped));
    assert_eq!(
        Arc::strong_count(&removals),
        2,
        "dropped during its own access"
    );
    devices.reclaim();
    assert_eq!(
        (Arc::strong_count(&removals), removals.load(SeqCst)),
        (1, 1)
    );
}

#[test]
fn of_many_that_want_one_span_one_gets_it() {
    for _ in 0..rounds(500) {
        let devices = Devices::new();
        let add = |n| {
            let wanted = span(n, 10 + n);
            devices
                .add::<Port>(reads_as(n), wanted)
                .map_err(|error| error.refusal)
        };
        let results: Vec<_> = thread::scope(|scope| {
            let adders = [1, 2, 3].map(|n| scope.spawn(move || add(n)));
            adders.map(|adder| adder.join().unwrap()).into()
        });
        let owners: Vec<_> = results.iter().filter_map(|result| result.ok()).collect();
        let [winner] = owners[..] else {
            panic!("not one owner: {results:?}");
        };
        for refusal in results.iter().filter_map(|result| result.err()) {
            assert!(matches!(refusal, Refusal::Overlap { owner, .. } if owner == winner));
        }
        assert_eq!(devices.view(|view| view.devices().count()), 1);
    }
}

/// Each thread adds, moves and removes in its own hundred ports, and sees the results of its own
/// changes. vCPUs find no other device there.
#[test]
fn adders_movers_and_removers_at_once() {
    const CHANGERS: u64 = 3;
    let devices = Devices::new();
    let stays = devices.add::<Port>(reads_as(0), span(0, 9)).unwrap();
    let change = |own: u64| {
        let base = own * 100;
        for n in 0..rounds(2_000) {
            let (at, to) = (base + n % 50, base + 50 + n % 50);
            let id = devices.add::<Port>(reads_as(own), span(at, at)).unwrap();
            assert_eq!(read(&devices, at), Ok(own));
            devices.map::<Mmio>(id, span(at, at)).unwrap();
            devices
                .move_to::<Port>(id, span(at, at), span(to, to))
                .unwrap();
            assert_eq!(read(&devices, at), Err(Miss::Unmapped));
            assert_eq!(read(&devices, to), Ok(own));
            drop(devices.remove(id).unwrap());
            assert_eq!(read(&devices, to), Err(Miss::Unmapped));
            assert!(devices.find::<Mmio>(at).is_none());
        }
    };
    let mut vcpu = devices.vcpu();
    let mut port = 0;
    let watch = || {
        port = (port + 1) % ((CHANGERS + 1) * 100);
        let found = vcpu.dispatch::<Port, _>(Direction::Read, port, 0, |hit| hit.handler()(0));
        match (port, found) {
            (0..10, found) => assert_eq!(found, Ok(0), "one that stays was missed"),
            (_, Ok(owner)) => assert_eq!(owner, port / 100, "{port} is another's"),
            (_, Err(miss)) => assert_eq!(miss, Miss::Unmapped),
        }
    };
    while_changing(watch, || {
        thread::scope(|scope| {
            (1..=CHANGERS).for_each(|own| drop(scope.spawn(move || change(own))));
        });
    });
    assert!(devices.view(|view| view.devices().map(|of| of.id()).eq([stays])));
}

/// Threads swap the two devices that they find at two places. Each place always has one owner, and
/// no device is lost or duplicated.
#[test]
fn concurrent_swaps() {
    const PLACES: u64 = 5;
    let devices = Devices::new();
    for n in 0..PLACES {
        devices.add::<Port>(reads_as(n), span(n, n)).unwrap();
    }
    let swaps = AtomicU64::new(0);
    let swap = |seed: u64| {
        let mut random = Random(seed);
        for _ in 0..rounds(4_000) {
            let a = random.below(PLACES);
            let b = (a + 1 + random.below(PLACES - 1)) % PLACES;
            let owner = |place| devices.find::<Port>(place).expect("a place has no owner").0;
            let (at, bt) = (span(a, a), span(b, b));
            let swapped = devices.update(|batch| {
                batch.move_to::<Port>(owner(a), at, bt)?;
                batch.move_to::<Port>(owner(b), bt, at)
            });
            match swapped {
                Ok(_) => drop(swaps.fetch_add(1, SeqCst)),
                // Another swap came between the lookups and the change.
                Err(Refusal::NotMapped { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let mut vcpu = devices.vcpu();
    let watch = || {
        for place in 0..PLACES {
            let owner = vcpu.dispatch::<Port, _>(Direction::Read, place, 0, |hit| hit.handler()(0));
            assert!(owner.is_ok(), "place {place} has no owner");
        }
        let mut owners: Vec<_> =
            devices.view(|view| view.spans::<Port>().map(|hit| hit.handler()(0)).collect());
        owners.sort_unstable();
        assert!(owners.iter().copied().eq(0..PLACES), "{owners:?}");
    };
    while_changing(watch, || {
        thread::scope(|scope| {
            scope.spawn(|| swap(1));
            scope.spawn(|| swap(2));
        });
    });
    assert!(swaps.into_inner() > 0, "nothing was ever swapped");
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// The spans of each device: a model that keeps the registry as a list, and applies a batch edit by
/// edit.
#[derive(Clone, Default)]
struct Naive(BTreeMap<DeviceId, Vec<(BusId, Span)>>);

#[derive(Clone, Copy, Debug)]
enum Step {
    Map(DeviceId, BusId, Span),
    Unmap(DeviceId, BusId, Span),
    Remap(DeviceId, BusId, Span),
    Remove(DeviceId),
}

impl Naive {
    fn apply(&mut self, step: Step) -> Result<(), Refusal> {
        let (id, bus) = match step {
            Step::Map(id, bus, _) | Step::Unmap(id, bus, _) | Step::Remap(id, bus, _) => {
                (id, Some(bus))
            }
            Step::Remove(id) => (id, None),
        };
        let owned = self.0.get_mut(&id).ok_or(Refusal::Unknown { id, bus })?;
        match step {
            Step::Map(_, bus, span) => owned.push((bus, span)),
            Step::Unmap(_, bus, span) => {
                let at = owned.iter().position(|of| *of == (bus, span));
                let span = Some(span);
                owned.remove(at.ok_or(Refusal::NotMapped { id, bus, span })?);
            }
            Step::Remap(_, bus, span) => {
                let before = owned.len();
                owned.retain(|of| of.0 != bus);
                if owned.len() == before {
                    return Err(Refusal::NotMapped {
                        id,
                        bus,
                        span: None,
                    });
                }
                owned.push((bus, span));
            }
            Step::Remove(_) => drop(self.0.remove(&id)),
        }
        Ok(())
    }

    fn spans(&self) -> impl Iterator<Item = (BusId, Span, DeviceId)> {
        let all = self.0.iter();
        all.flat_map(|(id, owned)| owned.iter().map(|(bus, span)| (*bus, *span, *id)))
    }

    fn has_an_overlap(&self) -> bool {
        let spans: Vec<_> = self.spans().collect();
        let overlap = |(i, a): (usize, &(BusId, Span, DeviceId))| {
            let later = &spans[i + 1..];
            later.iter().any(|b| a.0 == b.0 && a.1.overlaps(b.1))
        };
        spans.iter().enumerate().any(overlap)
    }
}

fn record(batch: &mut Batch<'_, Fns>, step: Step) -> Result<(), Refusal> {
    match step {
        Step::Map(id, BusId::Mmio, span) => batch.map::<Mmio>(id, span),
        Step::Map(id, _, span) => batch.map::<Port>(id, span),
        Step::Unmap(id, BusId::Mmio, span) => batch.unmap::<Mmio>(id, span),
        Step::Unmap(id, _, span) => batch.unmap::<Port>(id, span),
        Step::Remap(id, BusId::Mmio, span) => batch.remap::<Mmio>(id, span),
        Step::Remap(id, _, span) => batch.remap::<Port>(id, span),
        Step::Remove(id) => batch.remove(id),
    }
}

/// A step that often, but not always, succeeds.
fn step(random: &mut Random, naive: &Naive, ids: &[DeviceId]) -> Step {
    let id = ids[random.below(ids.len() as u64) as usize];
    let bus = [BusId::Mmio, BusId::Port][random.below(2) as usize];
    let first = random.below(24);
    let new = span(first, first + random.below(3));
    let owned: Vec<_> = naive.0.get(&id).into_iter().flatten().copied().collect();
    match random.below(16) {
        0..6 => Step::Map(id, bus, new),
        6..11 if !owned.is_empty() => {
            let (bus, span) = owned[random.below(owned.len() as u64) as usize];
            Step::Unmap(id, bus, span)
        }
        6..12 => Step::Unmap(id, bus, new),
        12..15 => Step::Remap(id, bus, new),
        _ => Step::Remove(id),
    }
}

/// Random batches have the result of the same steps on a list, or are refused for the same reason.
#[test]
fn random_batches_have_the_results_of_their_steps_on_a_list() {
    let (mut made, mut overlaps, mut others) = (0, 0, 0);
    for seed in 0..rounds(200) {
        let mut random = Random(seed);
        let devices = Devices::new();
        let mut naive = Naive::default();
        for _ in 0..50 {
            let mut edited = naive.clone();
            let mut batch = devices.batch();
            for _ in 0..random.below(2) {
                edited.0.insert(batch.add(reads_as(0)).unwrap(), Vec::new());
            }
            // Also devices that an earlier step removes.
            let ids: Vec<_> = edited.0.keys().copied().collect();
            let mut outcome = Ok(());
            for _ in 0..random.below(6) {
                if ids.is_empty() {
                    break;
                }
                let step = step(&mut random, &edited, &ids);
                record(&mut batch, step).unwrap();
                outcome = outcome.and_then(|()| edited.apply(step));
            }
            match (batch.publish(), outcome) {
                (Ok(_), Ok(())) if !edited.has_an_overlap() => {
                    naive = edited;
                    made += 1;
                }
                (Err(Refusal::Overlap { .. }), Ok(())) if edited.has_an_overlap() => overlaps += 1,
                (Err(refusal), Err(expected)) if refusal == expected => others += 1,
                (published, outcome) => panic!("seed {seed}: {published:?}, not {outcome:?}"),
            }
            assert_eq!(sorted(&devices), {
                let mut spans: Vec<_> = naive.spans().map(key).collect();
                spans.sort_unstable();
                spans
            });
            let count = devices.view(|view| view.devices().count());
            assert_eq!(count, naive.0.len());
        }
    }
    let counts = [made, overlaps, others];
    assert!(cfg!(miri) || counts.iter().all(|n| *n > 0), "{counts:?}");
}

fn key((bus, span, id): (BusId, Span, DeviceId)) -> (bool, u64, u64, DeviceId) {
    (bus == BusId::Port, span.first(), span.last(), id)
}

fn sorted(devices: &Registry<Fns>) -> Vec<(bool, u64, u64, DeviceId)> {
    devices.view(|view| {
        let mmio = view
            .spans::<Mmio>()
            .map(|hit| (BusId::Mmio, hit.span(), hit.id()));
        let ports = view
            .spans::<Port>()
            .map(|hit| (BusId::Port, hit.span(), hit.id()));
        mmio.chain(ports).map(key).collect()
    })
}
