//! vCPUs under constant publication: each sees every place in its state at some instant during its
//! access, and no quiescent device.

use std::{
    array,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Release, SeqCst},
        },
    },
    thread,
};

use ax_errno::AxError;
use support::{Sets, shared_registry};

use crate::{
    budget::Budget,
    census::{Census, VCPUS, Vcpu, Victim, only_reads},
};

const PLACES: usize = 8;
const LENGTH: usize = 0x10;

/// The publications about a place. Its changes are numbered: after an odd number there is a device,
/// with this number as its generation; after an even number there is none.
#[derive(Default)]
struct Place {
    begun: AtomicUsize,
    done: AtomicUsize,
}

impl Place {
    /// Makes the next change, which gets its number.
    fn change(&self, make: impl FnOnce(usize)) {
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        make(number);
        self.done.store(number, Release);
    }

    /// Asserts that the state that a vCPU sees existed at some instant during its access.
    fn check(&self, see: impl FnOnce() -> Result<usize, AxError>) {
        let earliest = self.done.load(Acquire);
        let seen = see();
        let latest = self.begun.load(SeqCst);
        let possible = earliest..=latest;
        match seen {
            Ok(generation) => assert!(
                generation % 2 == 1 && possible.contains(&generation),
                "generation {generation}, between changes {possible:?}"
            ),
            Err(error) => {
                assert_eq!(error, AxError::NotFound);
                let empty = possible.clone().any(|change| change % 2 == 0);
                assert!(empty, "no device, between changes {possible:?}");
            }
        }
    }
}

#[test]
fn vcpus_find_each_present_device_and_no_removed_one() {
    let (census, devices) = (Arc::new(Census::default()), shared_registry());
    let places: [Place; PLACES] = array::from_fn(|_| Place::default());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = Sets(&done);
        for nth in 0..VCPUS {
            let (devices, places, done) = (&devices, &places, &done);
            scope.spawn(move || {
                only_reads();
                let mut vcpu = Vcpu::new(devices, nth);
                let mut pick = nth;
                while !done.load(Acquire) {
                    pick = pick.wrapping_mul(25_214_903_917).wrapping_add(11);
                    let (place, offset) = (pick >> 16 & (PLACES - 1), pick >> 24 & 7);
                    places[place].check(|| vcpu.read(place * LENGTH + offset));
                    if pick >> 32 & 63 == 0 {
                        vcpu.park();
                        thread::yield_now();
                    }
                }
            });
        }
        let mut ids = [None; PLACES];
        for round in Budget::new(2_000, 8).rounds() {
            let place = round * 5 % PLACES;
            places[place].change(|number| match ids[place].take() {
                None => {
                    let device = Victim::idle(place * LENGTH, LENGTH, number, &census);
                    ids[place] = Some(devices.add_mmio_dev(device).unwrap());
                }
                Some(id) => census.leave(devices.remove(id).unwrap()),
            });
            // Removals accumulate for a while, because publication must not wait for the vCPUs.
            if census.bury_left() > 32 {
                thread::yield_now();
            }
        }
        drop(stops);
    });
    drop(devices);
    census.close();
}
