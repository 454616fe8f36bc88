//! Handlers that map and unmap devices in the middle of an access, nested deeper than any cell has
//! slots.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use axdevice::{DeviceId, SharedVmDevices};
use support::{shared_registry, size};

use crate::{
    budget::Budget,
    census::{Census, VCPUS, Vcpu, Victim, range},
    watchdog::Watchdog,
};

/// The depth of the nested accesses of one vCPU: more than the slots of the slot cell. Under Miri, where that takes
/// minutes, more than the slots of a thread with arc-swap.
const DEPTH: usize = size(66, 9);

const LENGTH: usize = 0x10;

/// The addresses of one vCPU: two ranges for every level.
const LANE: usize = 4 * DEPTH * LENGTH;

/// The state that the devices of a test share.
struct Mine {
    devices: Weak<SharedVmDevices>,
    census: Arc<Census>,
    /// Whether no other vCPU accesses devices. A device is then quiescent when its access is over.
    alone: bool,
    deepest: AtomicUsize,
}

impl Mine {
    fn new(devices: &Arc<SharedVmDevices>, census: &Arc<Census>, alone: bool) -> Arc<Self> {
        Arc::new(Self {
            devices: Arc::downgrade(devices),
            census: census.clone(),
            alone,
            deepest: AtomicUsize::new(0),
        })
    }

    /// Maps the device of a level, and returns its id.
    fn map(self: &Arc<Self>, lane: usize, level: usize) -> DeviceId {
        let (mine, own) = (self.clone(), Arc::new(OnceLock::new()));
        let id = own.clone();
        let first = lane * LANE + level * LENGTH;
        let device = Victim::new(first, LENGTH, level, &self.census, move |_, _| {
            mine.dig(lane, level, *id.wait());
        });
        let devices = self.devices.upgrade().expect("the test has it");
        let id = devices.add_mmio_dev(device).unwrap();
        own.set(id).expect("it is added once");
        id
    }

    /// A device's action in an access: it maps the next device, accesses it, and unmaps it, unless that device has
    /// unmapped itself.
    fn dig(self: &Arc<Self>, lane: usize, level: usize, own: DeviceId) {
        self.deepest.fetch_max(level, Relaxed);
        let devices = self.devices.upgrade().expect("the test has it");
        if level < DEPTH {
            let next = self.map(lane, level + 1);
            let first = lane * LANE + (level + 1) * LENGTH;
            assert_eq!(Vcpu::new(&devices, level).read(first), Ok(level + 1));
            if !unmaps_itself(level + 1) {
                let removed = devices.remove(next).unwrap();
                assert!(removed.is_quiescent() || !self.alone);
                self.census.leave(removed);
            }
            assert!(devices.find_mmio_dev(first.into()).is_none());
        }
        if unmaps_itself(level) {
            // First out of the way, to a range that no other lane uses.
            let aside = lane * LANE + (2 * DEPTH + level) * LENGTH;
            devices.move_to(own, range(aside, LENGTH)).unwrap();
            let removed = devices.remove(own).unwrap();
            let removed = removed.wait(1).expect_err("this access is inside");
            self.census.leave(removed);
        }
    }
}

/// Whether the device of a level removes itself from its own handler.
fn unmaps_itself(level: usize) -> bool {
    level.is_multiple_of(2)
}

#[test]
fn a_vcpu_maps_and_unmaps_deeper_than_any_slots() {
    let (census, devices) = (Arc::new(Census::default()), Arc::new(shared_registry()));
    let mine = Mine::new(&devices, &census, true);
    for nth in Budget::new(4, 1).rounds() {
        mine.map(0, 0);
        assert_eq!(Vcpu::new(&devices, nth).read(0), Ok(0));
        assert_eq!(mine.deepest.swap(0, Relaxed), DEPTH);
        assert_eq!(devices.snapshot().mmio().count(), 0, "each was unmapped");
        assert_eq!(census.bury_left(), 0);
    }
    drop((mine, devices));
    census.close();
}

#[test]
fn vcpus_map_and_unmap_at_once_while_others_hot_plug() {
    let watchdog = Watchdog::new("vcpus_map_and_unmap_at_once_while_others_hot_plug");
    let (census, devices) = (Arc::new(Census::default()), Arc::new(shared_registry()));
    let mine = Mine::new(&devices, &census, false);
    thread::scope(|scope| {
        let vcpu = |lane| {
            let (devices, mine) = (&devices, &mine);
            scope.spawn(move || {
                let mut vcpu = Vcpu::new(devices, lane);
                for _ in Budget::new(4, 1).rounds() {
                    mine.map(lane, 0);
                    assert_eq!(vcpu.read(lane * LANE), Ok(0));
                    vcpu.park();
                }
            })
        };
        let vcpus: Vec<_> = (0..VCPUS).map(vcpu).collect();
        while vcpus.iter().any(|vcpu| !vcpu.is_finished()) {
            let device = Victim::idle(VCPUS * LANE, LENGTH, 0, &census);
            let id = devices.add_mmio_dev(device).unwrap();
            census.bury_left();
            census.leave(devices.remove(id).unwrap());
            thread::yield_now();
        }
    });
    watchdog.feed();
    assert_eq!(mine.deepest.load(Relaxed), DEPTH);
    drop((mine, devices));
    census.close();
}
