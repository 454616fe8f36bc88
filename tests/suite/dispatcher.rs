//! A vCPU's own handle: it gives the same results as the registry, sees every change, and holds the tables no longer
//! than documented.

use std::{
    cell::Cell,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{AxVmDevices, BusCounters, Dispatcher, SharedVmDevices, Unmapped};
use support::{
    Access, Bus, Recorder, WIDTHS, answer, carried, device, floating, registry, shared_registry,
    size,
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

on_every_bus!(
    answers_as_the_registry_does,
    counts_hits_searches_and_misses,
    the_first_use_after_iter_mut_counts_once,
    an_access_that_crosses_is_not_the_remembered_devices,
    follows_the_policy
);

fn answers_as_the_registry_does<R: Bus>() {
    let devices = registry();
    let mut vcpu = devices.dispatcher();
    for n in 0..100 {
        R::add(&devices, Recorder::silent(n, n * 0x18, n * 0x18 + 0xf)).unwrap();
        // Each device before the handle remembers it, and after.
        for at in (0..=n * 0x18).rev().step_by(0xc).chain([n * 0x18]) {
            for width in WIDTHS {
                let ours = R::vcpu_read(&mut vcpu, at, width);
                assert_eq!(ours, R::read(&devices, at, width), "{at:#x} {width:?}");
                let ours = R::vcpu_write(&mut vcpu, at, width, usize::MAX);
                let registrys = R::write(&devices, at, width, usize::MAX);
                assert_eq!(ours, registrys, "{at:#x} {width:?}");
            }
        }
    }
}

fn counts_hits_searches_and_misses<R: Bus>() {
    let devices = registry();
    R::add(&devices, Recorder::silent(0, 0, 7)).unwrap();
    let mut vcpu = devices.dispatcher();
    let mut read = |at| {
        let _ = R::vcpu_read(&mut vcpu, at, BYTE);
        let counters = R::counters(vcpu.counters());
        (
            counters.hits,
            counters.searches,
            counters.misses,
            counters.refreshes,
        )
    };
    assert_eq!(read(0), (0, 1, 0, 1));
    assert_eq!(read(0), (1, 1, 0, 1));
    assert_eq!(read(8), (1, 1, 1, 1));
    R::add(&devices, Recorder::silent(1, 8, 15)).unwrap();
    assert_eq!(read(8), (1, 2, 1, 2));
    // One of many lookups sets the hint again.
    assert_eq!(read(8), (1, 3, 1, 2));
    while read(8).0 == 1 {}
    assert_eq!(read(8).1, 65);
}

fn the_first_use_after_iter_mut_counts_once<R: Bus>() {
    let mut devices = registry();
    R::add(&devices, Recorder::silent(0, 0, 7)).unwrap();
    for (at, counted) in [(0, (0, 1, 0, 1)), (8, (0, 0, 1, 1))] {
        drop(R::all_mut(&mut devices));
        let mut vcpu = devices.dispatcher();
        assert_eq!(R::vcpu_read(&mut vcpu, at, BYTE).is_ok(), at == 0);
        let BusCounters {
            hits,
            searches,
            misses,
            refreshes,
            ..
        } = R::counters(vcpu.counters());
        assert_eq!((hits, searches, misses, refreshes), counted);
    }
}

fn an_access_that_crosses_is_not_the_remembered_devices<R: Bus>() {
    let devices = registry();
    R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let mut vcpu = devices.dispatcher();
    assert_eq!(
        R::vcpu_read(&mut vcpu, 0x1f, BYTE),
        Ok(carried::<R>(answer(0, 0x1f), BYTE))
    );
    for at in [0xf, 0x20] {
        assert_eq!(
            R::vcpu_read(&mut vcpu, at, BYTE),
            Err(AxError::NotFound),
            "{at:#x}"
        );
    }
    let crossing = R::vcpu_read(&mut vcpu, 0x1f, QWORD);
    assert_eq!(crossing.is_err(), R::WIDE);
}

fn follows_the_policy<R: Bus>() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Float);
    let mut vcpu = devices.dispatcher();
    for width in WIDTHS {
        assert_eq!(
            R::vcpu_read(&mut vcpu, 0x40, width),
            Ok(floating::<R>(width))
        );
        assert_eq!(R::vcpu_write(&mut vcpu, 0x40, width, 1), Ok(()));
    }
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Panic);
    let mut vcpu = devices.dispatcher();
    let missed = catch_unwind(AssertUnwindSafe(|| R::vcpu_read(&mut vcpu, 0x40, BYTE)));
    let message = missed.unwrap_err();
    let text = format!(
        "emu_device not found: read of {} 0x40 with width Byte",
        R::BUS
    );
    assert_eq!(message.downcast_ref::<String>(), Some(&text));
    // The handle is still usable.
    R::add(&devices, Recorder::silent(0, 0x40, 0x40)).unwrap();
    assert!(R::vcpu_read(&mut vcpu, 0x40, BYTE).is_ok());
}

/// The result does not depend on the thread that makes a change, or on the pointer to the registry.
#[test]
fn a_thread_that_learns_of_a_device_finds_it() {
    const DEVICES: usize = size(1_500, 24);
    let devices = Arc::new(shared_registry());
    let added = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut vcpu = Dispatcher::new(devices.clone());
            let added = &added;
            scope.spawn(move || {
                let mut seen = 0;
                while seen < DEVICES {
                    let now = added.load(Acquire);
                    // The newest ones, and an earlier one.
                    for n in (seen..now).chain([now / 2].into_iter().filter(|&n| n < now)) {
                        let read = vcpu.handle_mmio_read((n * 0x1000).into(), QWORD);
                        assert_eq!(read, Ok(answer(n, n * 0x1000)), "device {n}");
                    }
                    seen = now;
                    thread::yield_now();
                }
                let counters = vcpu.counters().mmio;
                assert_eq!(counters.misses, 0);
                assert!(counters.refreshes <= DEVICES as u64 + 1);
            });
        }
        for n in 0..DEVICES {
            let device = Recorder::<GuestPhysAddrRange>::silent(n, n * 0x1000, n * 0x1000 + 0xff);
            devices.add_mmio_dev(device).unwrap();
            added.store(n + 1, Release);
        }
    });
}

#[test]
fn a_parked_handle_takes_hold_again() {
    let devices = registry();
    devices.add_port_dev(Recorder::silent(0, 0, 0)).unwrap();
    let mut vcpu = devices.dispatcher();
    for round in 1..=3 {
        assert!(vcpu.handle_port_read(Port(0), BYTE).is_ok());
        assert_eq!(vcpu.counters().port.refreshes, round);
        vcpu.park();
        assert!(format!("{vcpu:?}").contains("parked: true"));
    }
    vcpu.refresh();
    assert!(format!("{vcpu:?}").contains("parked: false"));
}

#[test]
fn a_handler_may_use_the_registry_that_dispatches_to_it() {
    let devices = Arc::new(shared_registry());
    let registry = Arc::downgrade(&devices);
    let act = move |Access { at, .. }| {
        let devices: Arc<SharedVmDevices> = registry.upgrade().expect("the registry is in use");
        let added = Recorder::<PortRange>::silent(at, 0x100, 0x100);
        // The second time the device already exists.
        let _ = devices.add_port_dev(added);
        devices.dispatcher().handle_port_read(Port(0x100), BYTE)
    };
    devices
        .add_port_dev(device::<PortRange>(0, 0xff, act))
        .unwrap();
    let mut vcpu = Dispatcher::new(devices);
    for _ in 0..2 {
        let read = vcpu.handle_port_read(Port(7), BYTE);
        assert_eq!(read, Ok(carried::<PortRange>(answer(7, 0x100), BYTE)));
    }
    assert!(vcpu.handle_port_read(Port(0x100), BYTE).is_ok());
}

#[test]
fn a_handler_that_unwinds_leaves_the_handle_usable() {
    let devices = registry();
    let act = |Access { at, .. }| -> ax_errno::AxResult<usize> {
        assert_ne!(at, 1, "the device unwinds");
        Ok(at)
    };
    devices
        .add_port_dev(device::<PortRange>(0, 3, act))
        .unwrap();
    let mut vcpu = devices.dispatcher();
    for _ in 0..2 {
        let read = catch_unwind(AssertUnwindSafe(|| vcpu.handle_port_read(Port(1), BYTE)));
        assert!(read.is_err());
        assert_eq!(vcpu.handle_port_read(Port(2), BYTE), Ok(2));
    }
}

/// More devices than a handle remembers, and one that takes many of the handle's places.
#[test]
fn more_devices_than_a_handle_remembers_are_found() {
    const DEVICES: usize = size(5_000, 100);
    let devices = shared_registry();
    let place = |n: usize| n * 0x1000;
    for n in 0..DEVICES {
        let device = Recorder::<GuestPhysAddrRange>::silent(n, place(n), place(n) + 0xfff);
        devices.add_mmio_dev(device).unwrap();
    }
    let large = place(DEVICES)..place(DEVICES + 20 * DEVICES);
    let device = Recorder::silent(DEVICES, large.start, large.end - 1);
    devices.add_mmio_dev(device).unwrap();
    let mut vcpu = devices.dispatcher();
    let mut check = |n: usize, at: usize| {
        let read = vcpu.handle_mmio_read(GuestPhysAddr::from(at), QWORD);
        assert_eq!(read, Ok(answer(n, at)), "{at:#x}");
    };
    for round in 0..3 {
        (0..DEVICES).for_each(|n| check(n, place(n) + 8 * round));
        large
            .clone()
            .step_by(0x1000)
            .for_each(|at| check(DEVICES, at + 8 * round));
    }
}

/// Dereferences alternately to one registry and the other.
struct Fickle<'r>([&'r SharedVmDevices; 2], Cell<usize>);

impl Deref for Fickle<'_> {
    type Target = SharedVmDevices;

    fn deref(&self) -> &SharedVmDevices {
        self.0[self.1.replace(1 - self.1.get())]
    }
}

/// Any code may implement the target of a handle. Regardless of the registry that it uses, none of its devices is gone.
#[test]
fn a_pointer_that_leads_elsewhere_does_no_harm() {
    let registries = [shared_registry(), shared_registry()];
    let add = |which: usize| {
        let device = Recorder::<PortRange>::silent(which, 0, 7);
        registries[which].add_port_dev(device).unwrap()
    };
    let mut ids = [add(0), add(1)];
    let mut vcpu = Dispatcher::new(Fickle(registries.each_ref(), Cell::new(0)));
    for round in 0..12 {
        let read = vcpu.handle_port_read(Port(3), BYTE).unwrap();
        let answers = [0, 1].map(|n| carried::<PortRange>(answer(n, 3), BYTE));
        assert!(answers.contains(&read), "{read:#x}");
        // Both registries publish equally often, and free what they replaced.
        let which = round % 2;
        drop(registries[which].remove(ids[which]).unwrap());
        registries[which].reclaim();
        ids[which] = add(which);
        if round % 5 == 0 {
            vcpu.refresh();
        }
    }
}

/// A handle goes from thread to thread with its vCPU.
#[test]
fn moves_to_another_thread() {
    let devices = Arc::new(shared_registry());
    devices
        .add_port_dev(Recorder::<PortRange>::silent(0, 0, 7))
        .unwrap();
    let mut vcpu = Dispatcher::new(devices);
    assert!(vcpu.handle_port_read(Port(0), BYTE).is_ok());
    let vcpu = thread::spawn(move || {
        assert!(vcpu.handle_port_write(Port(0), BYTE, 1).is_ok());
        vcpu
    })
    .join()
    .unwrap();
    assert_eq!(vcpu.counters().port.hits, 1);
    assert_eq!(vcpu.registry().snapshot().port().count(), 1);
}
