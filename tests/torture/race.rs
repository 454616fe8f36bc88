//! A device moves to and fro while others are added into the range that it has just left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Acquire},
    },
    thread,
};

use ax_errno::AxError;
use axdevice::{BusId, DeviceId, Refusal, SharedVmDevices, Span};
use support::{Sets, shared_registry};

use crate::{
    budget::Budget,
    census::{Census, VCPUS, Vcpu, Victim, only_reads, range},
};

const LENGTH: usize = 0x10;
const HERE: usize = 0x1000;
const THERE: usize = 0x2000;

/// The devices directly beside each range.
const NEIGHBOURS: [usize; 4] = [HERE - LENGTH, HERE + LENGTH, THERE - LENGTH, THERE + LENGTH];

/// The value of the wanderer; its neighbours are above, its rivals below.
const WANDERER: usize = 1_000;

fn span(first: usize, length: usize) -> Span {
    Span::new(first as u64, (first + length - 1) as u64).unwrap()
}

/// Moves the wanderer there, and back as soon as no rival is in its place. Does not move it back if the rivals have
/// failed and do not leave.
fn wander(devices: &SharedVmDevices, wanderer: DeviceId, failed: impl Fn() -> bool) {
    assert_eq!(devices.move_to(wanderer, range(THERE, LENGTH)), Ok(()));
    loop {
        match devices.move_to(wanderer, range(HERE, LENGTH)) {
            Ok(()) => return,
            Err(Refusal::Overlap {
                wanted,
                owner,
                owned,
                ..
            }) => {
                assert!(owner > wanderer, "a rival");
                assert_eq!(wanted, span(HERE, LENGTH));
                assert!(wanted.overlaps(owned) && wanted != owned);
                if failed() {
                    return;
                }
                thread::yield_now();
            }
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

/// Tries to add a rival in the wanderer's former range, and removes it again. Returns whether the addition succeeded.
fn rival(
    devices: &SharedVmDevices,
    wanderer: DeviceId,
    round: usize,
    census: &Arc<Census>,
) -> bool {
    let (first, length) = (HERE + round % 3 * 4, 8);
    match devices.add_mmio_dev(Victim::idle(first, length, round % 900, census)) {
        Ok(id) => {
            check(devices, wanderer);
            census.leave(devices.remove(id).unwrap());
            true
        }
        Err(error) => {
            let overlap = Refusal::Overlap {
                bus: BusId::Mmio,
                wanted: span(first, length),
                owner: wanderer,
                owned: span(HERE, LENGTH),
            };
            assert_eq!(error.refusal(), overlap);
            false
        }
    }
}

/// Asserts that no address has two owners, that the wanderer is in one place, and that its neighbours are in theirs.
/// Only for the thread that removes devices, because a snapshot holds devices.
fn check(devices: &SharedVmDevices, wanderer: DeviceId) {
    let snapshot = devices.snapshot();
    let rows = snapshot
        .mmio()
        .map(|(id, range, _)| (id, range.start.as_usize(), range.end.as_usize()));
    let rows: Vec<_> = rows.collect();
    assert!(rows.is_sorted_by(|a, b| a.2 <= b.1), "{snapshot}");
    let firsts: Vec<_> = rows
        .iter()
        .filter(|row| row.0 == wanderer)
        .map(|row| row.1)
        .collect();
    assert!(matches!(firsts[..], [HERE | THERE]), "{snapshot}");
    for neighbour in NEIGHBOURS {
        assert!(rows.iter().any(|row| row.1 == neighbour), "{snapshot}");
    }
}

#[test]
fn a_range_has_one_owner_and_its_neighbours_theirs() {
    let (census, devices) = (Arc::new(Census::default()), shared_registry());
    let add = |first, generation| {
        devices
            .add_mmio_dev(Victim::idle(first, LENGTH, generation, &census))
            .unwrap()
    };
    for (nth, first) in NEIGHBOURS.into_iter().enumerate() {
        add(first, WANDERER + 1 + nth);
    }
    let wanderer = add(HERE, WANDERER);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = Sets(&done);
        for nth in 0..VCPUS {
            let (devices, done) = (&devices, &done);
            scope.spawn(move || {
                only_reads();
                let mut vcpu = Vcpu::new(devices, nth);
                for offset in (0..LENGTH - 8).cycle() {
                    if done.load(Acquire) {
                        break;
                    }
                    for (nth, first) in NEIGHBOURS.into_iter().enumerate() {
                        let read = vcpu.read(first + offset);
                        assert_eq!(read, Ok(WANDERER + 1 + nth));
                    }
                    let here = vcpu.read(HERE + offset);
                    assert!(
                        matches!(here, Ok(..=WANDERER) | Err(AxError::NotFound)),
                        "{here:?}"
                    );
                    let there = vcpu.read(THERE + offset);
                    assert!(
                        matches!(there, Ok(WANDERER) | Err(AxError::NotFound)),
                        "{there:?}"
                    );
                }
            });
        }
        let rivals = scope.spawn(|| {
            let mut came = 0;
            for round in 0.. {
                if done.load(Acquire) {
                    break;
                }
                came += usize::from(rival(&devices, wanderer, round, &census));
                check(&devices, wanderer);
                if census.bury_left() > 32 {
                    thread::yield_now();
                }
            }
            came
        });
        for _ in Budget::new(2_000, 3).rounds() {
            wander(&devices, wanderer, || rivals.is_finished());
        }
        drop(stops);
        let came = rivals.join().unwrap();
        assert!(came > 0 || cfg!(miri), "no rival ever got in");
    });
    drop(devices);
    census.close();
}
