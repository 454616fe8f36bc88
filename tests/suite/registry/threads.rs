//! A shared registry under many threads: changes that are visible to all threads that learn of them, changes that race,
//! and dispatches that are not affected.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Barrier,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{Refusal, SharedVmDevices};
use support::{Access, Bus, Recorder, Sets, answer, shared_registry, size};

const QWORD: AccessWidth = AccessWidth::Qword;

/// The number of added devices: small where every step is slow.
const DEVICES: usize = size(1_500, 8);

/// The first address of device `n`. The addresses are filled in neither ascending nor descending order.
fn place(n: usize) -> usize {
    (n * 7919 % DEVICES) * 0x10
}

fn device(n: usize) -> Arc<Recorder<GuestPhysAddrRange>> {
    Recorder::silent(n, place(n), place(n) + 0xf)
}

/// Asserts that device `n` answers.
fn reached(devices: &SharedVmDevices, n: usize) {
    let at = place(n) + 8;
    let read = devices.handle_mmio_read(at.into(), QWORD);
    assert_eq!(read, Ok(answer(n, at)), "device {n}");
}

#[test]
fn a_thread_that_learns_of_a_device_finds_it() {
    const READERS: usize = size(3, 2);
    let devices = shared_registry();
    let (added, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _done = Sets(&done);
            for n in 0..DEVICES {
                devices.add_mmio_dev(device(n)).unwrap();
                added.store(n + 1, Release);
            }
        });
        for reader in 0..READERS {
            let (devices, added, done) = (&devices, &added, &done);
            scope.spawn(move || {
                let (mut known, mut pick) = (0, reader);
                while known < DEVICES && !done.load(Acquire) {
                    known = added.load(Acquire);
                    if known == 0 {
                        thread::yield_now();
                        continue;
                    }
                    // The newest, and any of the older ones.
                    pick = (pick * 31 + 17) % known;
                    reached(devices, known - 1);
                    reached(devices, pick);
                    assert!(devices.find_mmio_dev(place(pick).into()).is_some());
                    // The device, or no device yet, but never another one.
                    let at = place((known + 1) % DEVICES) + 8;
                    let read = devices.handle_mmio_read(at.into(), QWORD);
                    assert!(read.is_err() || read == Ok(answer((known + 1) % DEVICES, at)));
                }
            });
        }
    });
    (0..DEVICES).for_each(|n| reached(&devices, n));
}

#[test]
fn several_adders_lose_nothing() {
    const ADDERS: usize = 3;
    let devices = shared_registry();
    let start = Barrier::new(ADDERS);
    let ids: Vec<_> = thread::scope(|scope| {
        let adder = |nth: usize| {
            let (devices, start) = (&devices, &start);
            scope.spawn(move || {
                start.wait();
                let mine = (nth..DEVICES).step_by(ADDERS);
                let add = |n| {
                    let id = devices.add_mmio_dev(device(n)).unwrap();
                    reached(devices, n);
                    id
                };
                mine.map(add).collect::<Vec<_>>()
            })
        };
        let adders: Vec<_> = (0..ADDERS).map(adder).collect();
        adders.into_iter().map(|a| a.join().unwrap()).collect()
    });
    for of_one in &ids {
        assert!(
            of_one.is_sorted_by(|a, b| a < b),
            "the ids of one adder grow"
        );
    }
    let unique: BTreeSet<_> = ids.iter().flatten().copied().collect();
    assert_eq!(unique.len(), DEVICES);
    (0..DEVICES).for_each(|n| reached(&devices, n));
    let listed = GuestPhysAddrRange::listed(&devices.snapshot());
    assert!(listed.iter().map(|l| l.0).collect::<BTreeSet<_>>() == unique);
    assert_eq!(devices.iter_mmio_dev().count(), DEVICES);
}

#[test]
fn of_two_that_overlap_exactly_one_is_refused() {
    const ROUNDS: usize = size(400, 3);
    let devices = shared_registry();
    for round in 0..ROUNDS {
        // The two share four addresses.
        let first = |side: usize| round * 0x40 + side * 0xc;
        let start = Barrier::new(2);
        let add = |side: usize| {
            let recorder = Recorder::silent(side, first(side), first(side) + 0xf);
            start.wait();
            let refusal = devices.add_mmio_dev(recorder).err()?.refusal();
            // The thread that is refused learns that the other device exists.
            let at = first(1 - side);
            let read = devices.handle_mmio_read(at.into(), QWORD);
            assert_eq!(read, Ok(answer(1 - side, at)));
            Some(refusal)
        };
        let refusals: Vec<_> = thread::scope(|scope| {
            let adders = [0, 1].map(|side| scope.spawn(move || add(side)));
            adders
                .into_iter()
                .filter_map(|a| a.join().unwrap())
                .collect()
        });
        assert!(
            matches!(refusals[..], [Refusal::Overlap { .. }]),
            "{refusals:?}"
        );
        assert_eq!(devices.snapshot().mmio().count(), round + 1);
    }
}

#[test]
fn iterators_and_snapshots_are_of_one_instant() {
    let devices = shared_registry();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _done = Sets(&done);
            for n in 0..DEVICES / 4 {
                devices.add_mmio_dev(device(n)).unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut before = 0;
                while !done.load(Acquire) {
                    let lent: Vec<_> = devices.iter_mmio_dev().collect();
                    let firsts = lent.iter().map(|d| d.address_range().start.as_usize());
                    assert!(firsts.eq((0..lent.len()).map(place)));
                    let listed = GuestPhysAddrRange::listed(&devices.snapshot());
                    assert!(before <= lent.len() && lent.len() <= listed.len());
                    assert!(listed.is_sorted_by(|a, b| a.1.end <= b.1.start));
                    before = listed.len();
                }
            });
        }
    });
    assert_eq!(devices.iter_mmio_dev().count(), DEVICES / 4);
}

#[test]
fn misses_and_hits_race_with_an_unwinding_device() {
    const EACH: usize = size(200, 3);
    let devices = shared_registry();
    let act = |Access { at, .. }| -> AxResult<usize> {
        assert_ne!(at, 7, "a handler that unwinds");
        Ok(at)
    };
    devices.add_port_dev(support::device(0, 7, act)).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..EACH {
                    let unwinds = || devices.handle_port_read(Port(7), AccessWidth::Byte);
                    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(unwinds));
                    assert!(caught.is_err());
                    let at = (n % 7) as u16;
                    let read = devices.handle_port_read(Port(at), AccessWidth::Byte);
                    assert_eq!(read, Ok(at.into()));
                }
            });
        }
        for n in 1..EACH {
            let at = n * 8;
            devices.add_port_dev(Recorder::silent(n, at, at)).unwrap();
        }
    });
    assert_eq!(devices.iter_port_dev().count(), EACH);
}

/// More dispatches are under way at once, nested on four vCPUs, than a cell has slots.
#[test]
fn dispatches_nested_deeper_than_any_slots() {
    const VCPUS: usize = 4;
    // Just enough where every step is slow.
    const DEPTH: u16 = size(40, 17) as u16;
    let devices = Arc::new(shared_registry());
    let registry = Arc::downgrade(&devices);
    // At the bottom each vCPU waits for the others, and for a device that is added.
    let (bottom, added) = (Barrier::new(VCPUS + 1), Barrier::new(VCPUS + 1));
    let barriers = Arc::new((bottom, added));
    let at_bottom = barriers.clone();
    let device = support::device::<PortRange>(0, DEPTH.into(), move |Access { at, .. }| {
        let devices = registry.upgrade().unwrap();
        let read = |port| devices.handle_port_read(Port(port), AccessWidth::Byte);
        if at > 0 {
            return Ok(read(at as u16 - 1)? + 1);
        }
        at_bottom.0.wait();
        at_bottom.1.wait();
        read(DEPTH + 1).map(|new| usize::from(new == 0))
    });
    devices.add_port_dev(device).unwrap();
    thread::scope(|scope| {
        let vcpu = |_| {
            let devices = devices.clone();
            scope.spawn(move || devices.handle_port_read(Port(DEPTH), AccessWidth::Byte))
        };
        let vcpus: Vec<_> = (0..VCPUS).map(vcpu).collect();
        barriers.0.wait();
        let at = usize::from(DEPTH) + 1;
        let new = support::device::<PortRange>(at, at, |_| Ok(0));
        let id = devices.add_port_dev(new);
        barriers.1.wait();
        assert!(id.is_ok());
        for vcpu in vcpus {
            assert_eq!(vcpu.join().unwrap(), Ok(usize::from(DEPTH) + 1));
        }
    });
    devices.reclaim();
    assert_eq!(devices.iter_port_dev().count(), 2);
}
