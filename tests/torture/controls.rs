//! The check that the census detects the errors that it must detect.

use std::{
    sync::{Arc, Barrier, Mutex},
    thread,
};
use support::shared_registry;

use crate::census::{Census, Vcpu, Victim, only_reads};

/// Removes a device, and treats it as quiescent while a vCPU is inside.
#[test]
fn poison_that_does_not_wait_is_seen() {
    for nth in 0..2 {
        let (census, devices) = (Arc::new(Census::default()), shared_registry());
        let barriers = Arc::new([Barrier::new(2), Barrier::new(2)]);
        let inside = barriers.clone();
        let device = Victim::new(0, 8, 1, &census, move |_, _| {
            for barrier in inside.iter() {
                barrier.wait();
            }
        });
        let id = devices.add_mmio_dev(device.clone()).unwrap();
        thread::scope(|scope| {
            let vcpu = scope.spawn(|| Vcpu::new(&devices, nth).read(0));
            barriers[0].wait();
            let removed = devices.remove(id).unwrap();
            let quiescent = removed.is_quiescent();
            device.state().poison_early();
            barriers[1].wait();
            assert!(!quiescent);
            assert_eq!(vcpu.join().unwrap(), Ok(1));
        });
        assert_eq!(census.late(), 1);
    }
}

#[test]
fn a_device_dropped_by_a_reader_is_seen() {
    let census = Arc::new(Census::default());
    let device = Mutex::new(Some(Victim::idle(0, 8, 1, &census)));
    assert_eq!(census.alive(), 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            only_reads();
            drop(device.lock().unwrap().take());
        });
    });
    assert_eq!((census.alive(), census.misplaced()), (0, 1));
}
