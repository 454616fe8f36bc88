//! A device is removed and another takes its range at once, repeatedly.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use ax_errno::AxError;
use axdevice::{DeviceId, Refusal, SharedVmDevices};
use support::{Sets, shared_registry};

use crate::{
    budget::Budget,
    census::{Census, VCPUS, Vcpu, Victim, only_reads},
};

const FIRST: usize = 0x1000;
const LENGTH: usize = 0x100;

/// The way in which the range gets a new owner.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// Removed, then added: in between no device has it.
    Two,
    /// In one update: a device always has it.
    One,
}

/// Puts the next generation in the place of `id`.
fn succeed(
    devices: &SharedVmDevices,
    id: DeviceId,
    generation: usize,
    census: &Arc<Census>,
    by: By,
) -> DeviceId {
    let heir = Victim::idle(FIRST, LENGTH, generation, census);
    match by {
        By::Two => {
            census.leave(devices.remove(id).unwrap());
            devices.add_mmio_dev(heir).unwrap()
        }
        By::One => {
            let (heir, removed) = devices
                .update(|batch| -> Result<_, Refusal> {
                    batch.remove(id)?;
                    batch.add_mmio_dev(heir)
                })
                .unwrap();
            removed
                .into_iter()
                .for_each(|removed| census.leave(removed));
            heir
        }
    }
}

fn a_range_changes_hands(by: By) {
    let (census, devices) = (Arc::new(Census::default()), shared_registry());
    let (newest, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut id = devices
        .add_mmio_dev(Victim::idle(FIRST, LENGTH, 0, &census))
        .unwrap();
    thread::scope(|scope| {
        let stops = Sets(&done);
        for nth in 0..VCPUS {
            let (devices, newest, done) = (&devices, &newest, &done);
            scope.spawn(move || {
                only_reads();
                let mut vcpu = Vcpu::new(devices, nth);
                let mut seen = 0;
                for at in (FIRST..FIRST + LENGTH - 8).cycle() {
                    if done.load(Acquire) {
                        break;
                    }
                    let known = newest.load(Acquire).max(seen);
                    match vcpu.read(at) {
                        Ok(generation) => {
                            assert!(generation >= known, "{generation} after {known}");
                            seen = generation;
                        }
                        Err(error) => assert_eq!((error, by), (AxError::NotFound, By::Two)),
                    }
                }
            });
        }
        for round in Budget::new(10_000, 6).rounds() {
            let generation = round + 1;
            id = succeed(&devices, id, generation, &census, by);
            newest.store(generation, Release);
            if census.bury_left() > 32 {
                thread::yield_now();
            }
        }
        drop(stops);
    });
    drop(devices);
    census.close();
}

#[test]
fn a_range_is_used_again_at_once() {
    a_range_changes_hands(By::Two);
}

#[test]
fn a_range_is_handed_over_without_a_gap() {
    a_range_changes_hands(By::One);
}
