//! Two devices whose handlers move and remove each other, while a third thread hot-plugs.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
    thread,
};

use ax_errno::AxError;
use axdevice::{DeviceId, Refusal, SharedVmDevices};
use support::{Sets, shared_registry, size};

use crate::{
    budget::Budget,
    census::{Census, VCPUS, Vcpu, Victim, range},
    watchdog::Watchdog,
};

const LENGTH: usize = 0x10;

/// The number of places. Every device may move to any of them.
const PLACES: usize = 6;

/// The two devices, and their changes of each other.
struct Duel {
    devices: Weak<SharedVmDevices>,
    census: Arc<Census>,
    /// The device that is registered on either side, if any.
    sides: [Mutex<Option<DeviceId>>; 2],
    /// The lock that a handler holds while it changes the registry.
    locks: [Mutex<()>; 2],
    blows: AtomicUsize,
    moves: AtomicUsize,
    removals: AtomicUsize,
}

impl Duel {
    fn new(devices: &Arc<SharedVmDevices>, census: &Arc<Census>) -> Arc<Self> {
        Arc::new(Self {
            devices: Arc::downgrade(devices),
            census: census.clone(),
            sides: [None, None].map(Mutex::new),
            locks: [(); 2].map(Mutex::new),
            blows: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            removals: AtomicUsize::new(0),
        })
    }

    /// Adds a device on this side, in the first free place, if there is none.
    fn enlist(self: &Arc<Self>, side: usize) {
        let devices = self.devices.upgrade().expect("the test has it");
        let mut on_side = self.sides[side].lock().unwrap();
        let mut places = (0..PLACES).map(|place| place * LENGTH);
        while on_side.is_none()
            && let Some(first) = places.next()
        {
            let duel = self.clone();
            let device = Victim::new(first, LENGTH, side, &self.census, move |_, _| {
                duel.strike(side);
            });
            *on_side = devices.add_mmio_dev(device).ok();
        }
    }

    /// The action of the handler on this side: it moves or removes the other device, which may be inside its own
    /// handler.
    fn strike(self: &Arc<Self>, side: usize) {
        let _inside = self.locks[side].lock().unwrap();
        let devices = self.devices.upgrade().expect("the test has it");
        let other = 1 - side;
        let blow = self.blows.fetch_add(1, Relaxed);
        let Some(id) = *self.sides[other].lock().unwrap() else {
            return self.enlist(other);
        };
        if !blow.is_multiple_of(3) {
            match devices.move_to(id, range(blow * 5 % PLACES * LENGTH, LENGTH)) {
                Ok(()) => drop(self.moves.fetch_add(1, Relaxed)),
                Err(Refusal::Overlap { .. } | Refusal::Unknown { .. }) => (),
                Err(refusal) => panic!("{refusal}"),
            }
            return;
        }
        match devices.remove(id) {
            Ok(removed) => {
                assert_eq!(removed.id(), id);
                self.removals.fetch_add(1, Relaxed);
                self.census.leave(removed);
                *self.sides[other].lock().unwrap() = None;
                self.enlist(other);
            }
            Err(refusal) => assert_eq!(refusal, Refusal::Unknown { id, bus: None }),
        }
    }

    /// Whether both have happened often enough for the test.
    fn is_over(&self) -> bool {
        let enough = size(100, 1);
        self.moves.load(Relaxed) >= enough && self.removals.load(Relaxed) >= enough
    }
}

#[test]
fn handlers_move_and_remove_each_other_while_others_hot_plug() {
    let watchdog = Watchdog::new("handlers_move_and_remove_each_other_while_others_hot_plug");
    let (census, devices) = (Arc::new(Census::default()), Arc::new(shared_registry()));
    let duel = Duel::new(&devices, &census);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = Sets(&done);
        for nth in 0..VCPUS {
            let (devices, done) = (&devices, &done);
            scope.spawn(move || {
                let mut vcpu = Vcpu::new(devices, nth);
                for place in (0..PLACES).cycle() {
                    if done.load(Acquire) {
                        break;
                    }
                    let written = vcpu.write(place * LENGTH, 0);
                    assert!(
                        matches!(written, Ok(()) | Err(AxError::NotFound)),
                        "{written:?}"
                    );
                }
            });
        }
        let plug = |round: usize| {
            let device = Victim::idle(round % PLACES * LENGTH, LENGTH, 2, &census);
            let plugged = devices.add_mmio_dev(device);
            (0..2).for_each(|side| duel.enlist(side));
            census.bury_left();
            thread::yield_now();
            if let Ok(id) = plugged {
                census.leave(devices.remove(id).unwrap());
            }
        };
        for round in Budget::new(500, 3).rounds() {
            plug(round);
            watchdog.feed();
        }
        (0..).take_while(|_| !duel.is_over()).for_each(plug);
        drop(stops);
    });
    watchdog.feed();
    drop((duel, devices));
    census.close();
}
