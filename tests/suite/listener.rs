//! The listener of a registry: it gets every change of this crate's API, and can refuse it.

use std::{
    mem,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::{AccessWidth, PortRange};
use axdevice::{
    AxVmDeviceConfig, AxVmDevices, ConfigFault, DeviceBound, DeviceId, Difference, Listener,
    Mapping, Refusal, SharedVmDevices, Span, Unmapped, Veto, VmDevices,
};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType::Console};
use static_assertions::{assert_impl_all, assert_not_impl_any};
use support::{Access, Bus, Recorder, device, read_of, registry, shared_registry, size};

// A registry with a listener can be shared like one without.
assert_impl_all!(SharedVmDevices: Send, Sync);
assert_not_impl_any!(AxVmDevices: Send, Sync);
assert_impl_all!(dyn Listener: Send, Sync);

const BYTE: AccessWidth = AccessWidth::Byte;
const VETO: Veto = Veto::new("no doorbell is left").with_code(28);

/// Records each difference after both `before` and `after` got it.
#[derive(Default)]
struct Scribe {
    announced: Mutex<Option<Difference>>,
    reported: Mutex<Vec<Difference>>,
    vetoes: AtomicBool,
}

impl Listener for Scribe {
    fn before(&self, difference: &Difference) -> Result<(), Veto> {
        if self.vetoes.load(SeqCst) {
            return Err(VETO);
        }
        let earlier = self.announced.lock().unwrap().replace(difference.clone());
        assert_eq!(earlier, None, "a change was not published");
        Ok(())
    }

    fn after(&self, difference: &Difference) {
        let announced = self.announced.lock().unwrap().take();
        assert_eq!(announced.as_ref(), Some(difference));
        self.reported.lock().unwrap().push(difference.clone());
    }
}

/// The spans that one difference unmaps and maps.
type Reported = (Vec<Mapping>, Vec<Mapping>);

impl Scribe {
    fn reported(&self) -> Vec<Reported> {
        assert!(self.announced.lock().unwrap().is_none());
        let reported = mem::take(&mut *self.reported.lock().unwrap());
        let lists = |of: &Difference| (of.unmapped().to_vec(), of.mapped().to_vec());
        reported.iter().map(lists).collect()
    }
}

fn reported<B: DeviceBound>(devices: VmDevices<B>) -> (VmDevices<B>, Arc<Scribe>) {
    let scribe = Arc::<Scribe>::default();
    (devices.with_listener(scribe.clone()), scribe)
}

fn on<R: Bus>(id: DeviceId, first: u64, last: u64) -> Mapping {
    let span = Span::new(first, last).unwrap();
    let bus = R::BUS;
    Mapping { id, bus, span }
}

fn every_change_is_reported<R: Bus>() {
    let (devices, scribe) = reported(shared_registry());
    let device = Recorder::new(1, R::covering(0x10, 0x1f), &Default::default());
    let id = R::add(&devices, device.clone()).unwrap();
    assert_eq!(scribe.reported(), [(vec![], vec![on::<R>(id, 0x10, 0x1f)])]);
    devices.map(id, R::covering(0x40, 0x4f)).unwrap();
    assert_eq!(scribe.reported(), [(vec![], vec![on::<R>(id, 0x40, 0x4f)])]);
    devices.unmap(id, R::covering(0x10, 0x1f)).unwrap();
    assert_eq!(scribe.reported(), [(vec![on::<R>(id, 0x10, 0x1f)], vec![])]);
    devices.move_to(id, R::covering(0x50, 0x5f)).unwrap();
    let moved = (vec![on::<R>(id, 0x40, 0x4f)], vec![on::<R>(id, 0x50, 0x5f)]);
    assert_eq!(scribe.reported(), [moved]);
    device.set_range(R::covering(0x60, 0x6f));
    devices.reindex(id).unwrap();
    let moved = (vec![on::<R>(id, 0x50, 0x5f)], vec![on::<R>(id, 0x60, 0x6f)]);
    assert_eq!(scribe.reported(), [moved]);
    // The device is already at the range that it returns.
    devices.reindex(id).unwrap();
    assert_eq!(scribe.reported(), []);
    let (heir, _) = devices
        .update(|batch| {
            batch.remove(id)?;
            R::record(batch, Recorder::silent(2, 0x60, 0x6f))
        })
        .unwrap();
    let inherited = (
        vec![on::<R>(id, 0x60, 0x6f)],
        vec![on::<R>(heir, 0x60, 0x6f)],
    );
    assert_eq!(scribe.reported(), [inherited]);
    drop(devices.remove(heir).unwrap());
    assert_eq!(
        scribe.reported(),
        [(vec![on::<R>(heir, 0x60, 0x6f)], vec![])]
    );
}

fn a_veto_changes_nothing<R: Bus>() {
    let (devices, scribe) = reported(shared_registry());
    let id = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    scribe.reported();
    scribe.vetoes.store(true, SeqCst);
    let vetoed = Refusal::Vetoed(VETO);
    let device = Recorder::<R>::silent(2, 0x20, 0x2f);
    let refused = R::add(&devices, device.clone()).unwrap_err();
    assert_eq!(refused.refusal(), vetoed);
    assert_eq!(
        refused.to_string(),
        "device not added: the registry's listener refuses the change: no doorbell is left (code 28)"
    );
    assert_eq!(AxError::from(refused), AxError::PermissionDenied);
    assert_eq!(Arc::strong_count(&device), 1, "the registry has kept it");
    let place = R::covering(0x20, 0x2f);
    assert_eq!(devices.map(id, place), Err(vetoed));
    assert_eq!(devices.move_to(id, place), Err(vetoed));
    assert_eq!(devices.unmap(id, R::covering(0x10, 0x1f)), Err(vetoed));
    assert_eq!(devices.remove(id).err(), Some(vetoed));
    assert_eq!(devices.update(|batch| batch.remove(id)).err(), Some(vetoed));
    assert_eq!(R::read(&devices, 0x10, BYTE), read_of::<R>(1, 0x10));
    assert_eq!(R::read(&devices, 0x20, BYTE), Err(AxError::NotFound));
    assert_eq!(scribe.reported(), []);
}

fn iter_mut_is_reported_at_the_first_use<R: Bus>() {
    let (mut devices, scribe) = reported(registry());
    let id = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    let other = R::add(&devices, Recorder::silent(2, 0x20, 0x2f)).unwrap();
    scribe.reported();
    // Another device in the same range: that device answers there.
    *R::all_mut(&mut devices)[1] = Recorder::silent(3, 0x20, 0x2f);
    assert_eq!(R::read(&devices, 0x20, BYTE), read_of::<R>(3, 0x20));
    assert_eq!(scribe.reported(), []);
    *R::all_mut(&mut devices)[0] = Recorder::silent(4, 0x40, 0x4f);
    assert_eq!(scribe.reported(), [], "it was not used since");
    assert_eq!(R::read(&devices, 0x40, BYTE), read_of::<R>(4, 0x40));
    let moved = (vec![on::<R>(id, 0x10, 0x1f)], vec![on::<R>(id, 0x40, 0x4f)]);
    assert_eq!(scribe.reported(), [moved]);
    // Refused: nothing has changed.
    scribe.vetoes.store(true, SeqCst);
    *R::all_mut(&mut devices)[1] = Recorder::silent(5, 0x50, 0x5f);
    assert_eq!(R::read(&devices, 0x50, BYTE), Err(AxError::NotFound));
    assert_eq!(R::read(&devices, 0x20, BYTE), read_of::<R>(3, 0x20));
    assert_eq!(scribe.reported(), []);
    scribe.vetoes.store(false, SeqCst);
    drop(devices.remove(other).unwrap());
    assert_eq!(
        scribe.reported(),
        [(vec![on::<R>(other, 0x20, 0x2f)], vec![])]
    );
}

/// In each call, looks up devices in its registry and tries to change it.
#[derive(Default)]
struct Meddler {
    devices: Mutex<Weak<SharedVmDevices>>,
    met: Mutex<Vec<Met>>,
}

/// The result of a change, whether there was a device at each of two addresses, and the result of a read of the first.
type Met = (Result<(), Refusal>, [bool; 2], AxResult<usize>);

impl Meddler {
    fn meddle<R: Bus>(&self) {
        let Some(devices) = self.devices.lock().unwrap().upgrade() else {
            return;
        };
        let added = R::add(&devices, Recorder::silent(9, 0x90, 0x9f));
        let added = added.map(drop).map_err(|error| error.refusal());
        let found = [0x10, 0x20].map(|at| R::find(&devices, at).is_some());
        let read = R::read(&devices, 0x10, BYTE);
        self.met.lock().unwrap().push((added, found, read));
    }
}

struct On<R>(Arc<Meddler>, std::marker::PhantomData<fn() -> R>);

impl<R: Bus> Listener for On<R> {
    fn before(&self, _: &Difference) -> Result<(), Veto> {
        self.0.meddle::<R>();
        Ok(())
    }

    fn after(&self, _: &Difference) {
        self.0.meddle::<R>();
    }
}

fn a_listener_sees_the_registry_before_and_after_and_does_not_change_it<R: Bus>() {
    let meddler = Arc::<Meddler>::default();
    let listener = Arc::new(On::<R>(meddler.clone(), std::marker::PhantomData));
    let mut devices = Arc::new(shared_registry().with_listener(listener));
    let id = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    *meddler.devices.lock().unwrap() = Arc::downgrade(&devices);
    devices.move_to(id, R::covering(0x20, 0x2f)).unwrap();
    let refused = Err(Refusal::Reentrant);
    let met = mem::take(&mut *meddler.met.lock().unwrap());
    assert_eq!(
        met,
        [
            (refused, [true, false], read_of::<R>(1, 0x10)),
            (refused, [false, true], Err(AxError::NotFound))
        ]
    );
    // The devices that `iter_mut_*` has withdrawn: before they are put back, the listener finds none and reads none.
    *meddler.devices.lock().unwrap() = Weak::new();
    let alone = Arc::get_mut(&mut devices).expect("the only reference");
    *R::all_mut(alone)[0] = Recorder::silent(2, 0x10, 0x1f);
    *meddler.devices.lock().unwrap() = Arc::downgrade(&devices);
    assert_eq!(R::read(&devices, 0x10, BYTE), read_of::<R>(2, 0x10));
    let met = mem::take(&mut *meddler.met.lock().unwrap());
    assert_eq!(
        met,
        [
            (refused, [false, false], Err(AxError::ResourceBusy)),
            (refused, [true, false], read_of::<R>(2, 0x10))
        ]
    );
}

/// A guest may move its device while another change is being made: the move waits, and is reported after that change.
fn devices_that_move_themselves_on_many_threads_take_turns<R: Bus>() {
    const THREADS: usize = 4;
    const MOVES: usize = size(200, 3);
    let (devices, scribe) = reported(shared_registry());
    let devices = Arc::new(devices);
    let ids: Arc<[OnceLock<DeviceId>; THREADS]> = Arc::default();
    for n in 0..THREADS {
        let (registry, own) = (Arc::downgrade(&devices), ids.clone());
        let first = 0x100 * (n + 1);
        let moves = move |Access { written: to, .. }| {
            let registry = registry.upgrade().unwrap();
            if let Some(to) = to {
                let to = first + to;
                registry.move_to(*own[n].get().unwrap(), R::covering(to, to))?;
            }
            Ok(n)
        };
        let id = R::add(&devices, device(first, first, moves)).unwrap();
        ids[n].set(id).unwrap();
    }
    scribe.reported();
    thread::scope(|scope| {
        for n in 0..THREADS {
            let devices = &devices;
            scope.spawn(move || {
                let mut vcpu = devices.dispatcher();
                let mut at = 0;
                for step in 1..=MOVES {
                    let to = step % 0x80;
                    let first = 0x100 * (n + 1);
                    R::vcpu_write(&mut vcpu, first + at, BYTE, to).unwrap();
                    at = to;
                    assert_eq!(R::vcpu_read(&mut vcpu, first + at, BYTE), Ok(n));
                }
            });
        }
    });
    assert_eq!(scribe.reported().len(), THREADS * MOVES);
}

on_every_bus! {
    every_change_is_reported,
    a_veto_changes_nothing,
    iter_mut_is_reported_at_the_first_use,
    a_listener_sees_the_registry_before_and_after_and_does_not_change_it,
    devices_that_move_themselves_on_many_threads_take_turns,
}

fn entry(name: &str, first: usize) -> EmulatedDeviceConfig {
    EmulatedDeviceConfig {
        name: name.into(),
        base_gpa: first,
        length: 8,
        emu_type: Console,
        ..Default::default()
    }
}

#[test]
fn entries_are_reported_to_a_builders_listener_which_can_refuse_one() {
    let scribe = Arc::<Scribe>::default();
    let build = || {
        SharedVmDevices::builder()
            .config(AxVmDeviceConfig::new(vec![
                entry("com1", 0x3f8),
                entry("com2", 0x2f8),
            ]))
            .unmapped(Unmapped::Error)
            .listener(scribe.clone())
            .factory(Console, |config, batch| {
                let first = config.base_gpa;
                batch.add_port_dev(Recorder::silent(1, first, first + 7))?;
                Ok(())
            })
            .build()
    };
    let devices = build().unwrap();
    let ids: Vec<_> = devices.snapshot().port().map(|row| row.0).collect();
    assert_eq!(
        scribe.reported(),
        [
            (vec![], vec![on::<PortRange>(ids[1], 0x3f8, 0x3ff)]),
            (vec![], vec![on::<PortRange>(ids[0], 0x2f8, 0x2ff)]),
        ]
    );
    drop(devices.remove(ids[0]).unwrap());
    let gone = (vec![on::<PortRange>(ids[0], 0x2f8, 0x2ff)], vec![]);
    assert_eq!(scribe.reported(), [gone]);
    scribe.vetoes.store(true, SeqCst);
    let error = build().unwrap_err();
    assert_eq!(error.fault, ConfigFault::Refused(Refusal::Vetoed(VETO)));
    assert!(error.to_string().contains("no doorbell is left"), "{error}");
    assert_eq!(AxError::from(error), AxError::PermissionDenied);
}
