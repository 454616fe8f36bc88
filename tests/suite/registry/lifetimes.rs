//! The threads that free tables and devices: only writers free tables; the last holder drops a
//! device.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use axaddrspace::device::{AccessWidth, Port, PortRange};
use support::{Bus, Recorder, Sets, device, shared_registry, size};

use crate::common::Graves;

#[test]
fn a_vcpu_in_a_handler_neither_delays_a_change_nor_frees_a_table() {
    let devices = shared_registry();
    let flags = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
    let (entered, leave) = (&flags.0, &flags.1);
    let inside = flags.clone();
    let device = device::<PortRange>(0, 7, move |_| {
        inside.0.store(true, Release);
        while !inside.1.load(Acquire) {
            thread::yield_now();
        }
        Ok(6)
    });
    let id = devices.add_port_dev(device.clone()).unwrap();
    let held = Arc::strong_count(&device);
    thread::scope(|scope| {
        let leaves = Sets(leave);
        let vcpu = scope.spawn(|| devices.handle_port_read(Port(0), AccessWidth::Byte));
        while !entered.load(Acquire) && !vcpu.is_finished() {
            thread::yield_now();
        }
        for n in 1..10 {
            let (first, last) = (n * 0x10, n * 0x10 + 7);
            devices
                .add_port_dev(Recorder::silent(n, first, last))
                .unwrap();
            let read = devices.handle_port_read(Port(first as u16), AccessWidth::Byte);
            assert!(read.is_ok());
        }
        // The table of the vCPU's dispatch is now the only one that lists the device.
        drop(devices.remove(id).unwrap());
        devices.reclaim();
        assert_eq!(Arc::strong_count(&device), held, "the vCPU holds it");
        drop(leaves);
        assert_eq!(vcpu.join().unwrap(), Ok(6));
        assert_eq!(Arc::strong_count(&device), held, "the vCPU frees nothing");
        devices.reclaim();
        assert_eq!(Arc::strong_count(&device), 1, "a writer does");
    });
}

#[test]
fn devices_die_on_the_writer_s_thread_although_readers_dispatch_first_afterwards() {
    const ROUNDS: u16 = size(300, 3) as u16;
    let graves = Graves::default();
    let mortal = |first| graves.mortal(first);
    let devices = shared_registry();
    for n in 0..4 {
        devices.add_port_dev(mortal(n * 0x10)).unwrap();
    }
    // Replacement needs `&mut`, so the embedder has a lock around the registry.
    let (devices, done) = (RwLock::new(devices), AtomicBool::new(false));
    thread::scope(|scope| {
        let stops = Sets(&done);
        let reader = || {
            scope.spawn(|| {
                while !done.load(Acquire) {
                    for n in 0..4 {
                        let port = Port(n * 0x10 + 3);
                        let devices = devices.read().unwrap();
                        let read = devices.handle_port_read(port, AccessWidth::Word);
                        assert_eq!(read, Ok(port.0.into()));
                    }
                }
            })
        };
        let readers = [reader(), reader()];
        for round in 0..ROUNDS {
            let mut devices = devices.write().unwrap();
            let place = usize::from(round % 4);
            *PortRange::all_mut(&mut devices)[place] = mortal(place * 0x10);
            drop(devices);
            thread::yield_now();
        }
        drop(stops);
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
        let mut devices = devices.write().unwrap();
        // The last replacement takes effect here, if no reader came after it.
        drop(devices.snapshot());
        drop(PortRange::all_mut(&mut devices));
    });
    assert_eq!(graves.lock().len(), usize::from(ROUNDS));
    drop(devices);
    let graves = graves.lock();
    assert_eq!(graves.len(), usize::from(ROUNDS) + 4);
    assert!(graves.iter().all(|&id| id == thread::current().id()));
}

#[test]
fn a_refused_device_dies_with_its_adder_and_a_found_one_with_its_finder() {
    let graves = Graves::default();
    let mortal = || graves.mortal(0);
    let devices = shared_registry();
    devices.add_port_dev(mortal()).unwrap();
    thread::scope(|scope| {
        let adder = scope.spawn(|| drop(devices.add_port_dev(mortal()).unwrap_err()));
        let adder_s = adder.thread().id();
        adder.join().unwrap();
        assert_eq!(*graves.lock(), [adder_s]);
    });
    let found = devices.find_port_dev(Port(0));
    drop(devices);
    assert_eq!(graves.lock().len(), 1, "the finder holds it");
    thread::scope(|scope| {
        let finder = scope.spawn(move || drop(found));
        let finder_s = finder.thread().id();
        finder.join().unwrap();
        assert_eq!(graves.lock()[1], finder_s);
    });
}
