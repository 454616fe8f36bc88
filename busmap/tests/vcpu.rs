//! A vCPU's own handle: it finds the same devices as the registry.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use busmap::{Device, Direction, Miss, Mmio, Port, SysReg, Vcpu};

use self::common::{Devices, Handler, read, reads_as, rounds, span, while_changing};

type Handle = Vcpu<Arc<Devices>>;

fn read_by(vcpu: &mut Handle, port: u64) -> Result<u64, Miss> {
    vcpu.dispatch::<Port, _>(Direction::Read, port, 0, |hit| {
        hit.handler()(port - hit.span().first())
    })
}

#[test]
fn an_address_is_remembered_for_its_bus_only() {
    let devices = Arc::new(Devices::new());
    devices.add::<Port>(reads_as(1), span(0, 9)).unwrap();
    devices.add::<Mmio>(reads_as(2), span(0, 9)).unwrap();
    let mut vcpu = Vcpu::new(devices);
    for _ in 0..3 {
        assert_eq!(read_by(&mut vcpu, 5), Ok(1));
        assert_eq!(
            vcpu.dispatch::<Mmio, _>(Direction::Read, 5, 0, |hit| hit.handler()(0)),
            Ok(2)
        );
        assert_eq!(
            vcpu.dispatch::<SysReg, _>(Direction::Read, 5, 0, |_| ()),
            Err(Miss::Unmapped)
        );
    }
    assert_eq!(
        (vcpu.counters::<Port>().hits, vcpu.counters::<Mmio>().hits),
        (2, 2)
    );
    assert_eq!(vcpu.counters::<SysReg>().misses, 3);
}

/// Two devices in the same block of addresses, each of which becomes the hint.
#[test]
fn neighbours_in_one_grain_are_distinguished() {
    let devices = Devices::new();
    devices
        .add::<Mmio>(reads_as(1), span(0x1000, 0x100f))
        .unwrap();
    devices
        .add::<Mmio>(reads_as(2), span(0x1010, 0x101f))
        .unwrap();
    let mut vcpu = devices.vcpu();
    let mut read =
        |at, beyond| vcpu.dispatch::<Mmio, _>(Direction::Read, at, beyond, |hit| hit.handler()(0));
    for _ in 0..2 {
        assert_eq!((read(0x1008, 7), read(0x1010, 7)), (Ok(1), Ok(2)));
        assert_eq!((read(0x100f, 0), read(0x101f, 0)), (Ok(1), Ok(2)));
        assert_eq!(read(0x100c, 7), Err(Miss::Crosses(span(0x1000, 0x100f))));
        assert_eq!(
            (read(0x1020, 0), read(0xfff, 0)),
            (Err(Miss::Unmapped), Err(Miss::Unmapped))
        );
    }
}

#[test]
fn every_access_is_counted_once() {
    let devices = Arc::new(Devices::new());
    devices.add::<Port>(reads_as(1), span(0, 99)).unwrap();
    let mut vcpu = Vcpu::new(devices.clone());
    let mut answered = 0;
    for n in 0..1_000 {
        answered += u64::from(read_by(&mut vcpu, n % 20 * 10).is_ok());
        if n % 100 == 50 {
            vcpu.park();
        }
        if n % 100 == 99 {
            devices
                .add::<Port>(reads_as(2), span(1_000 + n, 1_000 + n))
                .unwrap();
        }
    }
    let counters = vcpu.counters::<Port>();
    assert_eq!(counters.hits + counters.searches, answered);
    assert_eq!(counters.misses, 1_000 - answered);
    // The first access, one after each of ten parks, one after each change except the last.
    assert_eq!(counters.refreshes, 1 + 10 + 9);
    assert!(counters.hits > 0);
}

#[test]
fn a_handle_holds_a_removed_device_until_it_is_used_or_dropped() {
    type LetGo = fn(&mut Handle);
    let ways: [LetGo; 5] = [
        Vcpu::refresh,
        Vcpu::park,
        |vcpu| assert_eq!(read_by(vcpu, 0), Err(Miss::Unmapped)),
        |vcpu| assert_eq!(read_by(vcpu, 1), Ok(2)),
        |vcpu| {
            assert_eq!(
                vcpu.dispatch::<Mmio, _>(Direction::Read, 0, 0, |_| ()),
                Err(Miss::Unmapped)
            )
        },
    ];
    for let_go in ways {
        let devices = Arc::new(Devices::new());
        let id = devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
        devices.add::<Port>(reads_as(2), span(1, 1)).unwrap();
        let mut vcpu = Vcpu::new(devices.clone());
        assert_eq!(
            (read_by(&mut vcpu, 0), read_by(&mut vcpu, 1)),
            (Ok(1), Ok(2))
        );
        let removed = devices.remove(id).unwrap();
        assert!(!removed.is_quiescent());
        let_go(&mut vcpu);
        assert!(removed.is_quiescent());
    }
    let devices = Arc::new(Devices::new());
    let id = devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    let mut vcpu = Vcpu::new(devices.clone());
    vcpu.refresh();
    let removed = devices.remove(id).unwrap();
    drop(vcpu);
    assert!(removed.is_quiescent());
}

/// A handler that changes the registry, called through a handle.
#[test]
fn a_handle_sees_changes_that_its_own_access_makes() {
    let devices = Arc::new(Devices::new());
    let weak = Arc::downgrade(&devices);
    let handler: Arc<Handler> = Arc::new(move |_| {
        let devices: Arc<Devices> = weak.upgrade().expect("the registry is in use");
        let (id, _) = devices.find::<Port>(0).expect("it is there");
        devices.remap::<Port>(id, span(1, 1)).unwrap();
        devices.add::<Port>(reads_as(5), span(0, 0)).unwrap();
        4
    });
    let device = Device::new("moves").on::<Port>(handler);
    devices.add::<Port>(device, span(0, 0)).unwrap();
    let mut vcpu = Vcpu::new(devices);
    assert_eq!(
        (read_by(&mut vcpu, 0), read_by(&mut vcpu, 0)),
        (Ok(4), Ok(5))
    );
}

/// After each of many changes a handle finds the same devices as the registry.
#[test]
fn a_handle_finds_the_same_devices_as_the_registry() {
    let devices = Arc::new(Devices::new());
    let mut vcpu = Vcpu::new(devices.clone());
    let mut ids = Vec::new();
    let mut hits = 0;
    for n in 0..rounds(3_000) {
        // A walk through all ports, with devices of one to three ports.
        let first = n * 5 % 31;
        match n % 4 {
            0 | 1 => ids.extend(
                devices
                    .add::<Port>(reads_as(n), span(first, first + n % 3))
                    .ok(),
            ),
            2 if !ids.is_empty() => {
                let id = ids[n as usize % ids.len()];
                let _ = devices.remap::<Port>(id, span(first, first + 1));
            }
            3 if ids.len() > 4 => drop(devices.remove(ids.swap_remove(n as usize % 5)).unwrap()),
            _ => {}
        }
        for port in 0..34 {
            let found = read(&devices, port);
            hits += u64::from(found.is_ok());
            assert_eq!(read_by(&mut vcpu, port), found, "port {port}");
        }
    }
    let counters = vcpu.counters::<Port>();
    assert_eq!(counters.hits + counters.searches, hits);
    assert!(cfg!(miri) || hits > 0);
}

/// A vCPU that learns of a change by any synchronisation sees it through its handle.
#[test]
fn a_handle_sees_every_change_that_its_vcpu_has_learned_of() {
    let devices = Arc::new(Devices::new());
    let id = devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    // The number of completed moves: each move `n` goes to port `n`.
    let moves = AtomicU64::new(0);
    let mut vcpu = Vcpu::new(devices.clone());
    let watch = || {
        let known = moves.load(Acquire);
        let found = read_by(&mut vcpu, known);
        let now = moves.load(Acquire);
        match found {
            Ok(value) => assert_eq!(value, 1),
            // The next move may be made before the vCPU learns of it.
            Err(_) => assert!(
                now > known || read(&devices, known).is_err(),
                "the device is missed at its new place"
            ),
        }
        if let Some(before) = known.checked_sub(1) {
            assert_eq!(
                read_by(&mut vcpu, before),
                Err(Miss::Unmapped),
                "an old place"
            );
        }
    };
    while_changing(watch, || {
        for n in 1..=rounds(20_000) {
            devices
                .move_to::<Port>(id, span(n - 1, n - 1), span(n, n))
                .unwrap();
            moves.store(n, Release);
        }
    });
}

/// A vCPU that has seen a device through the registry does not miss it through its handle.
#[test]
fn a_device_found_through_the_registry_is_found_through_the_handle() {
    let devices = Arc::new(Devices::new());
    let mut vcpu = Vcpu::new(devices.clone());
    let mut next = 0;
    let count = rounds(3_000);
    let watch = || {
        if read(&devices, next).is_ok() {
            assert_eq!(
                read_by(&mut vcpu, next),
                Ok(next),
                "it was seen, and is missed"
            );
            next = (next + 1) % count;
        }
    };
    while_changing(watch, || {
        for n in 0..count {
            devices.add::<Port>(reads_as(n), span(n, n)).unwrap();
        }
    });
}

/// Handles that move from thread to thread, each with its registry.
#[test]
fn a_handle_may_change_its_thread() {
    let devices = Arc::new(Devices::new());
    devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    let mut vcpu = Vcpu::new(devices.clone());
    for n in 1..=rounds(200) {
        devices.add::<Port>(reads_as(n), span(n, n)).unwrap();
        let on_its_way = thread::spawn(move || {
            assert_eq!(
                (read_by(&mut vcpu, 0), read_by(&mut vcpu, n)),
                (Ok(1), Ok(n))
            );
            vcpu
        });
        vcpu = on_its_way.join().unwrap();
        assert_eq!(read_by(&mut vcpu, 0), Ok(1));
    }
    // Also with a hint that another thread has set.
    while vcpu.counters::<Port>().hits == 0 {
        let on_its_way = thread::spawn(move || {
            assert_eq!(read_by(&mut vcpu, 0), Ok(1));
            vcpu
        });
        vcpu = on_its_way.join().unwrap();
    }
}
