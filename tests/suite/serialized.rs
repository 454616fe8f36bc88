//! [`Serialized`] devices in a registry: one access at a time, and no access fails because another is inside.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{Refusal, Serialized, SharedVmDevices};
use support::{Access, Bus, Recorder, bare_device, shared_registry, size};

const DWORD: AccessWidth = AccessWidth::Dword;

#[test]
fn threads_lose_no_update_of_a_device_that_is_not_sync() {
    const THREADS: usize = 4;
    const EACH: usize = size(2_000, 5);
    let devices = shared_registry();
    let count = Cell::new(0_usize);
    let counter = bare_device::<PortRange>(0x70, 0x77, move |Access { written, .. }| {
        let seen = count.get();
        if written.is_some() {
            // Time for another thread to enter in between.
            (0..20).for_each(|_| std::hint::spin_loop());
            count.set(seen + 1);
        }
        Ok(seen)
    });
    let counter = Arc::new(Serialized::new(counter));
    devices.add_port_dev(counter).unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    assert_eq!(devices.handle_port_write(Port(0x70), DWORD, 1), Ok(()));
                }
            });
        }
    });
    let total = devices.handle_port_read(Port(0x70), DWORD);
    assert_eq!(total, Ok(THREADS * EACH));
}

#[test]
fn the_embedder_enters_alone_too_and_not_twice() {
    let counter = Serialized::new(Cell::new(7));
    let again = counter.enter(|count| {
        count.set(8);
        counter.enter(|_| ())
    });
    assert_eq!(again, Ok(Err(AxError::ResourceBusy)));
    assert_eq!(counter.enter(Cell::get), Ok(8));
}

#[test]
fn an_access_waits_for_the_one_before_it() {
    const ROUNDS: usize = size(50, 1);
    const LINGERS: usize = size(2_000, 2);
    for _ in 0..ROUNDS {
        let devices = shared_registry();
        let flags = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
        let (inside, comes) = (&flags.0, &flags.1);
        let seen = flags.clone();
        let device = bare_device::<PortRange>(0, 3, move |Access { written, .. }| {
            if written.is_some() {
                seen.0.store(true, Release);
                while !seen.1.load(Acquire) {
                    thread::yield_now();
                }
                (0..LINGERS).for_each(|_| std::hint::spin_loop());
            }
            Ok(5)
        });
        let device = Arc::new(Serialized::new(device));
        devices.add_port_dev(device).unwrap();
        thread::scope(|scope| {
            let first = scope.spawn(|| devices.handle_port_write(Port(0), DWORD, 1));
            while !inside.load(Acquire) && !first.is_finished() {
                thread::yield_now();
            }
            comes.store(true, Release);
            assert_eq!(devices.handle_port_read(Port(0), DWORD), Ok(5));
            assert_eq!(first.join().unwrap(), Ok(()));
        });
    }
}

/// A serialized device at port 0, which calls `act` with the registry in its own handler.
fn with_handler<T: Send + 'static>(
    act: impl Fn(&SharedVmDevices) -> T + Send + 'static,
) -> (Arc<SharedVmDevices>, Arc<Mutex<Vec<T>>>) {
    let devices = Arc::new(shared_registry());
    let results = Arc::new(Mutex::new(Vec::new()));
    let (weak, noted) = (Arc::downgrade(&devices), results.clone());
    let device = bare_device::<PortRange>(0, 3, move |_| {
        let result = act(&weak.upgrade().unwrap());
        noted.lock().unwrap().push(result);
        Ok(5)
    });
    let device = Arc::new(Serialized::new(device));
    devices.add_port_dev(device).unwrap();
    (devices, results)
}

#[test]
fn entering_it_from_its_own_handler_gives_resource_busy() {
    let (devices, results) = with_handler(|devices| {
        let read = devices.handle_port_read(Port(0), DWORD);
        let written = devices.handle_port_write(Port(0), DWORD, 1);
        (read, written)
    });
    assert_eq!(devices.handle_port_read(Port(0), DWORD), Ok(5));
    assert_eq!(devices.handle_port_write(Port(0), DWORD, 1), Ok(()));
    let busy = (Err(AxError::ResourceBusy), Err(AxError::ResourceBusy));
    assert_eq!(*results.lock().unwrap(), [busy, busy]);
}

#[test]
fn adding_it_again_from_its_own_handler_is_refused() {
    let (devices, results) = with_handler(|devices| {
        let again = devices.find_port_dev(Port(0)).unwrap();
        devices.add_port_dev(again).unwrap_err().refusal()
    });
    assert_eq!(devices.handle_port_read(Port(0), DWORD), Ok(5));
    let refusal = results.lock().unwrap()[0];
    // Its lock is taken, so it returns an empty range.
    assert!(matches!(refusal, Refusal::Empty { .. }), "{refusal}");
    assert_eq!(devices.iter_port_dev().count(), 1);
}

#[test]
fn other_devices_answer_its_handler() {
    let (devices, results) = with_handler(|devices| {
        let added = devices
            .add_port_dev(Recorder::silent(3, 0x10, 0x1f))
            .is_ok();
        devices.reclaim();
        let map = devices.snapshot().to_string();
        let read = devices.handle_port_read(Port(0x10), DWORD).is_ok();
        (added, map.lines().count(), read)
    });
    assert_eq!(devices.handle_port_read(Port(0), DWORD), Ok(5));
    assert_eq!(*results.lock().unwrap(), [(true, 2, true)]);
}

#[test]
fn a_handler_that_unwinds_releases_the_lock() {
    let devices = shared_registry();
    let device = bare_device::<PortRange>(0, 3, |Access { written, .. }| {
        assert_ne!(written, Some(13), "a handler that unwinds");
        Ok(5)
    });
    devices
        .add_port_dev(Arc::new(Serialized::new(device)))
        .unwrap();
    for _ in 0..3 {
        let unwinds = || devices.handle_port_write(Port(0), DWORD, 13);
        assert!(catch_unwind(AssertUnwindSafe(unwinds)).is_err());
        assert_eq!(devices.handle_port_read(Port(0), DWORD), Ok(5));
        assert_eq!(devices.handle_port_write(Port(0), DWORD, 1), Ok(()));
    }
}

#[test]
fn a_handler_that_fails_releases_the_lock() {
    let devices = shared_registry();
    let device = bare_device::<PortRange>(0, 3, |Access { at, .. }| match at {
        0 => Err(AxError::Io),
        _ => Ok(at),
    });
    devices
        .add_port_dev(Arc::new(Serialized::new(device)))
        .unwrap();
    let word = AccessWidth::Word;
    assert_eq!(devices.handle_port_read(Port(0), word), Err(AxError::Io));
    assert_eq!(devices.handle_port_read(Port(1), word), Ok(1));
}

#[test]
fn two_devices_that_call_each_other_end() {
    let devices = Arc::new(shared_registry());
    let calls = |other: usize, weak: Weak<SharedVmDevices>| {
        move |_: Access| {
            let devices = weak.upgrade().unwrap();
            GuestPhysAddrRange::read(&*devices, other, DWORD)
        }
    };
    for (own, other) in [(0x00, 0x10), (0x10, 0x00)] {
        let act = calls(other, Arc::downgrade(&devices));
        let device = bare_device::<GuestPhysAddrRange>(own, own + 0xf, act);
        devices
            .add_mmio_dev(Arc::new(Serialized::new(device)))
            .unwrap();
    }
    // The accesses go round to the first device, which is busy; the error returns through both.
    for at in [0x00, 0x10] {
        let read = GuestPhysAddrRange::read(&*devices, at, DWORD);
        assert_eq!(read, Err(AxError::ResourceBusy));
    }
}

#[test]
fn gives_its_device_back() {
    let device = bare_device::<PortRange>(0, 3, |_| Ok(5));
    let mut serialized = Serialized::new(device);
    let mut range = || axdevice_base::BaseDeviceOps::address_range(serialized.get_mut());
    assert_eq!(range(), PortRange::new(Port(0), Port(3)));
    let bare = serialized.into_inner();
    let read = axdevice_base::BaseDeviceOps::handle_read(&bare, Port(0), DWORD);
    assert_eq!(read, Ok(5));
}
