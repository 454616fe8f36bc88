//! Removal: when a device is quiescent, and which owner gets the device.

mod common;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use busmap::{Device, Direction, Miss, Mmio, Port, Removed};

use self::common::{Devices, Fns, Handler, read, reads_as, rounds, span, while_changing};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_vcpu_inside_keeps_a_device_from_being_quiescent() {
    let devices = Devices::new();
    let ((entered, has_entered), (leave, may_leave)) = (channel(), channel());
    let may_leave = std::sync::Mutex::new(may_leave);
    let handler: Arc<Handler> = Arc::new(move |_| {
        entered.send(()).unwrap();
        may_leave.lock().unwrap().recv().unwrap();
        7
    });
    let device = Device::new("slow").on::<Port>(handler.clone());
    let id = devices.add::<Port>(device, span(0, 0)).unwrap();
    thread::scope(|scope| {
        // Dropped if this panics: otherwise the vCPU would never leave.
        let leave = leave;
        let vcpu = scope.spawn(|| read(&devices, 0));
        has_entered.recv().unwrap();
        let removed = devices.remove(id).unwrap();
        assert_eq!(read(&devices, 0), Err(Miss::Unmapped));
        assert!(!removed.is_quiescent());
        let removed = removed.wait(100).expect_err("a vCPU is inside");
        let timeout = Duration::from_millis(5);
        let removed = removed.wait_timeout(timeout).expect_err("a vCPU is inside");
        let error: Box<dyn Error + Send + Sync> = Box::new(removed);
        assert!(
            error
                .to_string()
                .contains("device #1 was removed and is still in use")
        );
        let removed: Box<Removed<Fns>> = error.downcast().unwrap();
        leave.send(()).unwrap();
        let device = removed.wait_timeout(LONG).expect("the vCPU leaves");
        assert_eq!(vcpu.join().unwrap(), Ok(7));
        assert_eq!(Arc::strong_count(&handler), 2, "this test and the device");
        assert_eq!(device.into_tag(), "slow");
        assert_eq!(Arc::strong_count(&handler), 1);
    });
}

#[test]
fn a_device_leaves_all_buses_at_once_and_can_be_added_again() {
    let devices = Devices::new();
    let id = devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    devices.map::<Mmio>(id, span(0, 9)).unwrap();
    devices.map::<Port>(id, span(5, 5)).unwrap();
    let removed = devices.remove(id).unwrap();
    assert!(devices.find::<Mmio>(9).is_none());
    assert_eq!(
        (read(&devices, 0), read(&devices, 5)),
        (Err(Miss::Unmapped), Err(Miss::Unmapped))
    );
    assert!(devices.remove(id).is_err(), "twice");
    let device = removed.wait(0).unwrap();
    let again = devices.add::<Port>(device, span(0, 0)).unwrap();
    assert_ne!(again, id);
    assert_eq!(
        (read(&devices, 0), read(&devices, 5)),
        (Ok(1), Err(Miss::Unmapped))
    );
}

/// Only tables that list the device delay quiescence.
#[test]
fn holders_of_newer_or_older_tables_do_not_delay_quiescence() {
    let devices = Devices::new();
    let mut older = devices.vcpu();
    older.refresh();
    let id = devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    let other = devices.add::<Port>(reads_as(2), span(1, 1)).unwrap();
    let removed = devices.remove(id).unwrap();
    let mut newer = devices.vcpu();
    newer.refresh();
    assert!(removed.is_quiescent());
    let other = devices.remove(other).unwrap();
    assert!(!other.is_quiescent(), "the newer handle's tables list it");
    newer.refresh();
    assert!(other.is_quiescent());
    assert!(!older.is_parked());
}

#[test]
fn a_batch_returns_removed_devices_in_the_order_of_the_removals() {
    let devices = Devices::new();
    let ids = [0, 1, 2].map(|n| devices.add::<Port>(reads_as(n), span(n, n)).unwrap());
    let (_, removed) = devices
        .update(|batch| {
            let new = batch.add(reads_as(9))?;
            batch.remove(ids[2])?;
            batch.remove(new)?;
            batch.remove(ids[0])
        })
        .map_err(|refusal: busmap::Refusal| refusal)
        .unwrap();
    let numbers: Vec<_> = removed.iter().map(|of| of.id().number()).collect();
    assert_eq!(numbers, [3, 4, 1]);
    assert!(removed.into_iter().all(|of| of.wait(0).is_ok()));
    assert_eq!(read(&devices, 1), Ok(1));
}

/// A device that knows whether a vCPU may be inside it, and counts its drops.
struct Guarded {
    over: AtomicBool,
    drops: Arc<AtomicU64>,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Relaxed);
    }
}

impl Guarded {
    fn device(drops: &Arc<AtomicU64>) -> (Arc<Self>, Device<Fns>) {
        let guarded = Arc::new(Self {
            over: AtomicBool::new(false),
            drops: drops.clone(),
        });
        let inside = guarded.clone();
        let handler: Arc<Handler> = Arc::new(move |_| {
            let before = inside.over.load(Relaxed);
            thread::yield_now();
            let after = inside.over.load(Relaxed);
            assert!(!before && !after, "a vCPU is inside a quiescent device");
            1
        });
        (guarded, Device::new("guarded").on::<Port>(handler))
    }
}

/// Hot-unplug while vCPUs run, with and without handles: no vCPU is inside a quiescent device, and each device is
/// dropped once.
#[test]
fn no_vcpu_is_inside_a_quiescent_device() {
    let devices = Devices::new();
    let drops = Arc::new(AtomicU64::new(0));
    let rounds = rounds(1_000);
    let mut vcpu = devices.vcpu();
    let watch = || {
        let answered = |found| assert!(matches!(found, Ok(1) | Err(Miss::Unmapped)), "{found:?}");
        answered(vcpu.dispatch::<Port, _>(Direction::Read, 0, 0, |hit| hit.handler()(0)));
        answered(read(&devices, 0));
    };
    while_changing(watch, || {
        for n in 0..rounds {
            let (guarded, device) = Guarded::device(&drops);
            let id = devices.add::<Port>(device, span(0, 0)).unwrap();
            thread::yield_now();
            let removed = devices.remove(id).unwrap();
            match n % 3 {
                // No thread waits for this one.
                0 => drop(removed),
                1 => {
                    let device = removed.wait_timeout(LONG).expect("the vCPUs leave");
                    guarded.over.store(true, Relaxed);
                    drop(device);
                    assert_eq!(Arc::strong_count(&guarded), 1);
                }
                _ => {
                    let start = Instant::now();
                    while !removed.is_quiescent() {
                        assert!(start.elapsed() < LONG, "the vCPUs never leave");
                        thread::yield_now();
                    }
                    guarded.over.store(true, Relaxed);
                }
            }
        }
    });
    drop(vcpu);
    devices.reclaim();
    assert_eq!(drops.load(SeqCst), rounds);
}

/// Several threads remove the same devices: of each, one succeeds.
#[test]
fn a_device_is_removed_once() {
    for _ in 0..rounds(300) {
        let devices = Devices::new();
        let ids = [0, 1, 2, 3].map(|n| devices.add::<Port>(reads_as(n), span(n, n)).unwrap());
        let remove = || ids.map(|id| u64::from(devices.remove(id).is_ok()));
        let (ours, theirs) = thread::scope(|scope| {
            let other = scope.spawn(remove);
            (remove(), other.join().unwrap())
        });
        let removals: Vec<_> = ours.iter().zip(theirs).map(|(a, b)| a + b).collect();
        assert_eq!(removals, [1; 4]);
        assert_eq!(devices.view(|view| view.devices().count()), 0);
    }
}

/// A destructor may change the registry that drops its device.
#[test]
fn a_destructor_may_use_the_registry() {
    struct Successor(std::sync::Weak<Devices>);
    impl Drop for Successor {
        fn drop(&mut self) {
            if let Some(devices) = self.0.upgrade() {
                devices.add::<Port>(reads_as(2), span(0, 0)).unwrap();
            }
        }
    }
    let devices = Arc::new(Devices::new());
    let successor = Successor(Arc::downgrade(&devices));
    let handler: Arc<Handler> = Arc::new(move |_| {
        let _ = &successor;
        1
    });
    let device = Device::new("has a successor").on::<Port>(handler);
    let id = devices.add::<Port>(device, span(0, 0)).unwrap();
    assert_eq!(read(&devices, 0), Ok(1));
    drop(devices.remove(id).unwrap());
    assert_eq!(read(&devices, 0), Ok(2));
}
