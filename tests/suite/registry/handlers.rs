//! Handlers that use their own registry, and handlers and destructors that misbehave.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use ax_errno::{AxError, AxResult};
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{Refusal, SharedVmDevices};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::common::{
    bus::Bus,
    device::{Ranged, Recorder, Script, answer, shared_registry},
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

/// A device that adds the next one and hands the access on to it, `left` times over.
struct Nested<R> {
    devices: Weak<SharedVmDevices>,
    at: usize,
    left: usize,
    /// The level at which to unwind instead.
    unwinds: usize,
    range: R,
}

/// How many addresses each level has.
const LEVEL: usize = 0x10;

impl<R: Bus> Nested<R> {
    fn new(devices: &Weak<SharedVmDevices>, at: usize, left: usize, unwinds: usize) -> Arc<Self> {
        Arc::new(Self {
            devices: devices.clone(),
            at,
            left,
            unwinds,
            range: R::covering(at, at + LEVEL - 1),
        })
    }

    /// The registry, with the next level added to it unless it is there already.
    fn next(&self) -> Option<(Arc<SharedVmDevices>, usize)> {
        assert_ne!(self.left, self.unwinds, "a handler that unwinds");
        let left = self.left.checked_sub(1)?;
        let devices = self.devices.upgrade().unwrap();
        let at = self.at + LEVEL;
        if R::find(&*devices, at).is_none() {
            let next = Self::new(&self.devices, at, left, self.unwinds);
            add::<R>(&devices, next);
        }
        Some((devices, at))
    }
}

impl<R: Bus> BaseDeviceOps<R> for Nested<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        self.range
    }

    fn handle_read(&self, _: R::Addr, width: AccessWidth) -> AxResult<usize> {
        match self.next() {
            Some((devices, at)) => Ok(R::read(&*devices, at, width)? + 1),
            None => Ok(0),
        }
    }

    fn handle_write(&self, _: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        match self.next() {
            Some((devices, at)) => R::write(&*devices, at, width, val),
            None => Ok(()),
        }
    }
}

fn add<R: Bus>(devices: &SharedVmDevices, device: Arc<Nested<R>>) {
    R::add(devices, device).unwrap();
}

const DEEP: usize = 12;

fn a_handler_adds_a_device_and_dispatches_to_it_twelve_deep<R: Bus>() {
    for reads in [true, false] {
        let devices = Arc::new(shared_registry());
        let weak = Arc::downgrade(&devices);
        add::<R>(&devices, Nested::new(&weak, 0, DEEP, usize::MAX));
        for _ in 0..2 {
            if reads {
                assert_eq!(R::read(&*devices, 0, BYTE), Ok(DEEP));
            } else {
                assert_eq!(R::write(&*devices, 0, BYTE, 1), Ok(()));
            }
            assert_eq!(R::all(&devices).len(), DEEP + 1);
        }
        // A `Weak` keeps nobody alive.
        drop(devices);
        assert!(weak.upgrade().is_none());
    }
}

fn unwinding_out_of_twelve_handlers_leaves_everything_usable<R: Bus>() {
    let devices = Arc::new(shared_registry());
    let witness = Recorder::<R>::silent(3, 0x1000, 0x1007);
    R::add(&devices, witness.clone()).unwrap();
    let alone = Arc::strong_count(&witness);
    let top = Nested::<R>::new(&Arc::downgrade(&devices), 0, DEEP, 0);
    add::<R>(&devices, top);
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
    let device = Script::<R, _>::new(0, 0xf, move |at, _| {
        let devices = weak.upgrade().unwrap();
        for n in 0..50 {
            let recorder = Recorder::silent(n, 0x100 + n * 8, 0x107 + n * 8);
            R::add(&devices, recorder).unwrap();
            // The table that led here is among those that this would free.
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
    let device = Script::<R, _>::new(0, 0x1f, move |at, _| match at {
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
    let window = Script::<GuestPhysAddrRange, _>::new(0x1000, 0x1fff, move |at, _| {
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
    let outer = Ranged(move || {
        let devices = weak.upgrade().unwrap();
        let id = devices
            .add_port_dev(Recorder::silent(0, 0x10, 0x1f))
            .unwrap();
        assert!(devices.handle_port_read(Port(0x10), BYTE).is_ok());
        *noted.lock().unwrap() = Some(id);
        PortRange::new(Port(0x20), Port(0x2f))
    });
    let outer = devices.add_port_dev(Arc::new(outer)).unwrap();
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
    let outer = Ranged(move || {
        let devices = weak.upgrade().unwrap();
        // The first time only: the second it is refused itself.
        drop(devices.add_port_dev(Recorder::silent(0, 0x10, 0x1f)));
        PortRange::new(Port(0x1f), Port(0x2f))
    });
    let refused = devices.add_port_dev(Arc::new(outer)).unwrap_err();
    assert!(matches!(refused.refusal(), Refusal::Overlap { .. }));
    assert_eq!(devices.iter_port_dev().count(), 1);
    assert!(devices.find_port_dev(Port(0x20)).is_none());
}

/// A device that does something when it is dropped.
struct Dying<F: FnMut()>(F);

impl<F: FnMut()> Drop for Dying<F> {
    fn drop(&mut self) {
        // In a test that has failed, a second panic would take the others down too.
        if !thread::panicking() {
            (self.0)();
        }
    }
}

impl<F: FnMut() + 'static> BaseDeviceOps<PortRange> for Dying<F> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(0x10), Port(0x1f))
    }

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(1)
    }

    fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

#[test]
fn the_destructor_of_a_refused_device_may_add_another() {
    let devices = Arc::new(shared_registry());
    devices.add_port_dev(Recorder::silent(0, 0, 0xff)).unwrap();
    let weak = Arc::downgrade(&devices);
    let dying = Dying(move || {
        let devices = weak.upgrade().unwrap();
        devices
            .add_port_dev(Recorder::silent(1, 0x100, 0x100))
            .unwrap();
    });
    let refused = devices.add_port_dev(Arc::new(dying)).unwrap_err();
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
    let dying = Dying(move || {
        assert!(weak.upgrade().is_none());
        // Another registry, in the middle of dropping this one.
        others.add_port_dev(Recorder::silent(2, 0, 7)).unwrap();
        assert!(others.handle_port_read(Port(0), BYTE).is_ok());
    });
    devices.add_port_dev(Arc::new(dying)).unwrap();
    drop(devices);
    assert_eq!(other.iter_port_dev().count(), 1);
}

#[test]
fn dropping_the_registry_drops_each_device_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = || {
        let drops = drops.clone();
        Arc::new(Dying(move || {
            drops.fetch_add(1, Relaxed);
        }))
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
    assert_eq!(drops.load(Relaxed), 4, "all but the one in hand");
    drop(found);
    assert_eq!(drops.load(Relaxed), 5);
}

#[test]
fn a_handler_may_drop_the_last_handle_but_the_caller_s() {
    let devices = Arc::new(shared_registry());
    let spare = Mutex::new(Some(devices.clone()));
    let device = Script::<PortRange, _>::new(0, 7, move |_, _| {
        drop(spare.lock().unwrap().take());
        Ok(6)
    });
    devices.add_port_dev(device).unwrap();
    assert_eq!(devices.handle_port_read(Port(0), BYTE), Ok(6));
    assert_eq!(Arc::strong_count(&devices), 1);
    assert_eq!(devices.handle_port_read(Port(0), BYTE), Ok(6));
}
