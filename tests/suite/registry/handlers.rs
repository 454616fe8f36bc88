//! Handlers that use their own registry, and handlers and destructors that misbehave.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{Refusal, SharedVmDevices};
use axdevice_base::BaseDeviceOps;
use support::{Access, Bus, Recorder, answer, device, mortal, ranged, shared_registry};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

/// The number of addresses of each level.
const LEVEL: usize = 0x10;

/// A device that adds the next one and forwards the access to it, for `left` levels. At the level `unwinds` it panics
/// instead.
fn nested<R: Bus>(
    devices: Weak<SharedVmDevices>,
    at: usize,
    left: usize,
    unwinds: usize,
) -> Arc<impl BaseDeviceOps<R> + Send + Sync> {
    device::<R>(
        at,
        at + LEVEL - 1,
        move |Access { width, written, .. }| {
            assert_ne!(left, unwinds, "a handler that unwinds");
            let Some(left) = left.checked_sub(1) else {
                return Ok(0);
            };
            let (registry, next) = (devices.upgrade().unwrap(), at + LEVEL);
            if R::find(&*registry, next).is_none() {
                add_nested::<R>(&registry, next, left, unwinds);
            }
            match written {
                Some(value) => R::write(&*registry, next, width, value).map(|()| 0),
                None => Ok(R::read(&*registry, next, width)? + 1),
            }
        },
    )
}

fn add_nested<R: Bus>(devices: &Arc<SharedVmDevices>, at: usize, left: usize, unwinds: usize) {
    let device: Arc<dyn BaseDeviceOps<R> + Send + Sync> =
        nested::<R>(Arc::downgrade(devices), at, left, unwinds);
    R::add(&**devices, device).unwrap();
}

const DEEP: usize = 12;

fn a_handler_adds_a_device_and_dispatches_to_it_twelve_deep<R: Bus>() {
    for reads in [true, false] {
        let devices = Arc::new(shared_registry());
        let weak = Arc::downgrade(&devices);
        add_nested::<R>(&devices, 0, DEEP, usize::MAX);
        for _ in 0..2 {
            if reads {
                assert_eq!(R::read(&*devices, 0, BYTE), Ok(DEEP));
            } else {
                assert_eq!(R::write(&*devices, 0, BYTE, 1), Ok(()));
            }
            assert_eq!(R::all(&devices).len(), DEEP + 1);
        }
        // A `Weak` keeps no registry alive.
        drop(devices);
        assert!(weak.upgrade().is_none());
    }
}

fn unwinding_out_of_twelve_handlers_leaves_everything_usable<R: Bus>() {
    let devices = Arc::new(shared_registry());
    let witness = Recorder::<R>::silent(3, 0x1000, 0x1007);
    R::add(&devices, witness.clone()).unwrap();
    let alone = Arc::strong_count(&witness);
    add_nested::<R>(&devices, 0, DEEP, 0);
    for _ in 0..3 {
        let read = || R::read(&*devices, 0, BYTE);
        assert!(catch_unwind(AssertUnwindSafe(read)).is_err());
        let write = || R::write(&*devices, 0, BYTE, 0);
        assert!(catch_unwind(AssertUnwindSafe(write)).is_err());
        assert_eq!(R::all(&devices).len(), DEEP + 2);
        let read = R::read(&*devices, 0x1000, QWORD);
        assert_eq!(read, Ok(answer(3, 0x1000)));
    }
    R::add(&devices, Recorder::silent(4, 0x2000, 0x2000)).unwrap();
    assert!(R::find(&*devices, 0x2000).is_some());
    // No replaced table is still held by a dispatch that unwound; `all` has lent the witness.
    devices.reclaim();
    assert_eq!(Arc::strong_count(&witness), alone + 1);
}

fn a_handler_may_use_everything_while_its_table_is_replaced<R: Bus>() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let own = [0xab_usize; 4].to_vec();
    let device = device::<R>(0, 0xf, move |Access { at, .. }| {
        let devices = weak.upgrade().unwrap();
        for n in 0..50 {
            let recorder = Recorder::silent(n, 0x100 + n * 8, 0x107 + n * 8);
            R::add(&devices, recorder).unwrap();
            // The table of this dispatch is among those that this could free.
            devices.reclaim();
        }
        assert!(R::find(&*devices, at).is_some());
        assert_eq!(R::all(&devices).len(), 51);
        assert_eq!(R::listed(&devices.snapshot()).len(), 51);
        let mut data = [0; 8];
        devices.read_bytes(R::at(0x100), &mut data).unwrap();
        assert_eq!(usize::from_le_bytes(data), answer(0, 0x100));
        Ok(own.iter().sum())
    });
    R::add(&devices, device).unwrap();
    assert_eq!(R::read(&*devices, 8, QWORD), Ok(4 * 0xab));
    assert_eq!(R::all(&devices).len(), 51);
}

fn a_handler_may_call_itself<R: Bus>() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let device = device::<R>(0, 0x1f, move |Access { at, .. }| match at {
        0 => Ok(0),
        _ => Ok(R::read(&*weak.upgrade().unwrap(), at - 1, BYTE)? + 1),
    });
    R::add(&devices, device).unwrap();
    assert_eq!(R::read(&*devices, 0x1f, BYTE), Ok(0x1f));
}

on_every_bus!(
    a_handler_adds_a_device_and_dispatches_to_it_twelve_deep,
    unwinding_out_of_twelve_handlers_leaves_everything_usable,
    a_handler_may_use_everything_while_its_table_is_replaced,
    a_handler_may_call_itself,
);

#[test]
fn handlers_reach_across_the_buses() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let window = device::<GuestPhysAddrRange>(0x1000, 0x1fff, move |Access { at, .. }| {
        PortRange::read(&*weak.upgrade().unwrap(), at - 0x1000, QWORD)
    });
    devices.add_mmio_dev(window).unwrap();
    devices
        .add_port_dev(Recorder::silent(2, 0x3f8, 0x3ff))
        .unwrap();
    let read = |at| GuestPhysAddrRange::read(&*devices, at, QWORD);
    assert_eq!(read(0x13f8), Ok(answer(2, 0x3f8)));
    assert_eq!(read(0x1000), Err(AxError::NotFound), "what the ports gave");
}

#[test]
fn a_device_may_use_the_registry_while_it_is_added() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let inner = Arc::new(Mutex::new(None));
    let noted = inner.clone();
    let outer = ranged(move || {
        let devices = weak.upgrade().unwrap();
        let id = devices
            .add_port_dev(Recorder::silent(0, 0x10, 0x1f))
            .unwrap();
        assert!(devices.handle_port_read(Port(0x10), BYTE).is_ok());
        *noted.lock().unwrap() = Some(id);
        PortRange::new(Port(0x20), Port(0x2f))
    });
    let outer = devices.add_port_dev(outer).unwrap();
    let inner = inner.lock().unwrap().unwrap();
    assert!(inner < outer, "the inner one was registered first");
    let listed = PortRange::listed(&devices.snapshot());
    let places: Vec<_> = listed
        .iter()
        .map(|&(id, range, _)| (id, range.start))
        .collect();
    assert_eq!(places, [(inner, Port(0x10)), (outer, Port(0x20))]);
}

#[test]
fn a_device_that_takes_its_own_place_is_refused() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let outer = ranged(move || {
        let devices = weak.upgrade().unwrap();
        // Only the first time: the second addition is refused itself.
        drop(devices.add_port_dev(Recorder::silent(0, 0x10, 0x1f)));
        PortRange::new(Port(0x1f), Port(0x2f))
    });
    let refused = devices.add_port_dev(outer).unwrap_err();
    assert!(matches!(refused.refusal(), Refusal::Overlap { .. }));
    assert_eq!(devices.iter_port_dev().count(), 1);
    assert!(devices.find_port_dev(Port(0x20)).is_none());
}

/// A device that calls a closure when it is dropped.
fn dying(dies: impl Fn() + 'static) -> Arc<impl BaseDeviceOps<PortRange>> {
    mortal::<PortRange>(0x10, 0x1f, dies)
}

#[test]
fn the_destructor_of_a_refused_device_may_add_another() {
    let devices = Arc::new(shared_registry());
    devices.add_port_dev(Recorder::silent(0, 0, 0xff)).unwrap();
    let weak = Arc::downgrade(&devices);
    let dying = dying(move || {
        let devices = weak.upgrade().unwrap();
        devices
            .add_port_dev(Recorder::silent(1, 0x100, 0x100))
            .unwrap();
    });
    let refused = devices.add_port_dev(dying).unwrap_err();
    assert_eq!(devices.iter_port_dev().count(), 1);
    drop(refused);
    assert_eq!(devices.iter_port_dev().count(), 2);
    assert!(devices.handle_port_read(Port(0x100), BYTE).is_ok());
}

#[test]
fn destructors_that_run_while_the_registry_is_dropped_find_no_registry() {
    let devices = Arc::new(shared_registry());
    let other = Arc::new(shared_registry());
    let (weak, others) = (Arc::downgrade(&devices), other.clone());
    let dying = dying(move || {
        assert!(weak.upgrade().is_none());
        // Another registry, during the drop of this one.
        others.add_port_dev(Recorder::silent(2, 0, 7)).unwrap();
        assert!(others.handle_port_read(Port(0), BYTE).is_ok());
    });
    devices.add_port_dev(dying).unwrap();
    drop(devices);
    assert_eq!(other.iter_port_dev().count(), 1);
}

#[test]
fn dropping_the_registry_drops_each_device_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = || {
        let drops = drops.clone();
        dying(move || {
            drops.fetch_add(1, Relaxed);
        })
    };
    let mut devices = shared_registry();
    devices.add_port_dev(counted()).unwrap();
    assert_eq!(devices.iter_port_dev().count(), 1);
    for _ in 0..3 {
        *PortRange::all_mut(&mut devices)[0] = counted();
        assert!(devices.find_port_dev(Port(0x10)).is_some());
        assert_eq!(devices.iter_port_dev().count(), 1);
    }
    let found = devices.find_port_dev(Port(0x10)).unwrap();
    assert!(devices.add_port_dev(counted()).is_err());
    drop(devices);
    assert_eq!(drops.load(Relaxed), 4, "all except the one held here");
    drop(found);
    assert_eq!(drops.load(Relaxed), 5);
}

#[test]
fn a_handler_may_drop_the_last_handle_but_the_caller_s() {
    let devices = Arc::new(shared_registry());
    let spare = Mutex::new(Some(devices.clone()));
    let device = device::<PortRange>(0, 7, move |_| {
        drop(spare.lock().unwrap().take());
        Ok(6)
    });
    devices.add_port_dev(device).unwrap();
    assert_eq!(devices.handle_port_read(Port(0), BYTE), Ok(6));
    assert_eq!(Arc::strong_count(&devices), 1);
    assert_eq!(devices.handle_port_read(Port(0), BYTE), Ok(6));
}
