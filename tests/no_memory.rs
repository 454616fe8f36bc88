//! A change without memory for the tables: it changes nothing and returns an error.
//!
//! On request of a thread, the allocator fails the n-th large allocation of that thread. An allocation is large if it
//! grows with the number of devices. The crate's other allocations are small and of fixed size, and abort when they
//! fail, as `Arc::new` and `Box::new` do.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ax_errno::AxError;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{DeviceId, Difference, Listener, Refusal, SharedVmDevices, Unmapped, Veto};
use support::{Echo, shared_registry};

/// The size from which an allocation can fail: larger than all allocations of fixed size.
const LARGE: usize = 576;

thread_local! {
    /// The number of large allocations that still succeed; `None`: all succeed.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    /// The number of failed allocations.
    static FAILED: Cell<usize> = const { Cell::new(0) };
}

struct Failing;

impl Failing {
    /// Whether this allocation must fail.
    fn fails(size: usize) -> bool {
        let Some(left) = LEFT.get().filter(|_| size >= LARGE) else {
            return false;
        };
        // All later ones succeed: each run fails one allocation.
        LEFT.set(left.checked_sub(1));
        FAILED.set(FAILED.get() + usize::from(left == 0));
        left == 0
    }
}

// SAFETY: every call is forwarded unchanged to the system's allocator, or returns null, which an allocation may. The
// thread-locals need no memory: their initial values are constants, and they have no destructor.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::fails(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if Self::fails(size) {
            return ptr::null_mut();
        }
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Repeats `change` until it succeeds; the n-th large allocation fails in the n-th run. Asserts that each earlier run
/// failed, and returns their number.
fn until_it_succeeds(
    mut change: impl FnMut() -> Result<(), Refusal>,
    unchanged: impl Fn(),
) -> usize {
    for n in 0.. {
        FAILED.set(0);
        LEFT.set(Some(n));
        let made = change();
        LEFT.set(None);
        if FAILED.get() == 0 {
            assert_eq!(made, Ok(()));
            return n;
        }
        assert_eq!(made, Err(Refusal::NoMemory), "allocation {n}");
        unchanged();
    }
    unreachable!("an allocation more succeeds each time")
}

/// The number of devices: enough that each of a table's vectors is large.
const DEVICES: usize = 200;

/// The minimum number of allocations for the copy of a table: two vectors, and its index.
const COPIES: usize = 3;

/// A device with eight ports.
fn eight(first: u16) -> Arc<Echo<PortRange>> {
    Arc::new(Echo(ports(first)))
}

fn ports(first: u16) -> PortRange {
    PortRange::new(Port(first), Port(first + 7))
}

/// The first port of device `n`.
fn first(n: usize) -> u16 {
    n as u16 * 8
}

/// A registry with [`DEVICES`] devices, and one of them.
fn registry() -> (SharedVmDevices, Vec<DeviceId>, Arc<Echo<PortRange>>) {
    let devices = shared_registry();
    let witness = eight(first(0));
    let mut ids = vec![devices.add_port_dev(witness.clone()).unwrap()];
    ids.extend((1..DEVICES).map(|n| devices.add_port_dev(eight(first(n))).unwrap()));
    (devices, ids, witness)
}

/// Checks that the registry stays as it is now, and keeps nothing.
fn unchanged<'a>(
    devices: &'a SharedVmDevices,
    witness: &'a Arc<Echo<PortRange>>,
) -> impl Fn() + use<'a> {
    let map = devices.snapshot().to_string();
    let counts = Arc::strong_count(witness);
    move || {
        assert_eq!(devices.snapshot().to_string(), map);
        assert_eq!(Arc::strong_count(witness), counts, "a table was leaked");
        let read = devices.handle_port_read(Port(first(0)), AccessWidth::Byte);
        assert_eq!(read, Ok(0));
    }
}

#[test]
fn an_addition_without_memory_gives_the_device_back() {
    let (devices, _, witness) = registry();
    let device = eight(first(DEVICES));
    let add = || {
        let error = match devices.add_port_dev(device.clone()) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let refusal = error.refusal();
        drop(error.into_device());
        assert_eq!(Arc::strong_count(&device), 1, "nothing keeps it");
        Err(refusal)
    };
    // The copies of a table's vectors and of its index, which may be built anew as well.
    assert!(until_it_succeeds(add, unchanged(&devices, &witness)) >= COPIES);
    assert!(devices.find_port_dev(Port(first(DEVICES))).is_some());
    assert_eq!(AxError::from(Refusal::NoMemory), AxError::NoMemory);
}

#[test]
fn a_device_that_is_not_removed_stays() {
    let (devices, ids, witness) = registry();
    let remove = || devices.remove(ids[7]).map(drop);
    assert!(until_it_succeeds(remove, unchanged(&devices, &witness)) >= COPIES);
    assert!(devices.find_port_dev(Port(first(7))).is_none());
}

#[test]
fn a_device_that_is_not_moved_stays() {
    let (devices, ids, witness) = registry();
    let moved = || devices.move_to(ids[7], ports(first(DEVICES)));
    assert!(until_it_succeeds(moved, unchanged(&devices, &witness)) >= COPIES);
    let reindexed = || devices.reindex(ids[7]);
    assert!(until_it_succeeds(reindexed, unchanged(&devices, &witness)) >= COPIES);
    assert!(devices.find_port_dev(Port(first(DEVICES))).is_none());
}

/// An update that is so large that its record and the list of removed devices can fail too.
#[test]
fn an_update_that_is_not_made_changes_nothing() {
    let (devices, ids, witness) = registry();
    let heirs: Vec<_> = (1..DEVICES).map(|n| eight(first(n))).collect();
    let update = || {
        let updated = devices.update(|batch| -> Result<(), Refusal> {
            for (&id, heir) in ids[1..].iter().zip(&heirs) {
                batch.remove(id)?;
                batch.add_port_dev(heir.clone())?;
            }
            Ok(())
        });
        updated.map(|((), removed)| assert_eq!(removed.len(), DEVICES - 1))
    };
    let unchanged = unchanged(&devices, &witness);
    let recorded = || {
        unchanged();
        assert!(
            heirs.iter().all(|heir| Arc::strong_count(heir) == 1),
            "nothing keeps it"
        );
    };
    let failed = until_it_succeeds(update, recorded);
    // The record as it grows, the returned removals, the tables, the removals as they grow.
    assert!(failed > 8, "{failed}");
    assert!(heirs.iter().all(|heir| Arc::strong_count(heir) > 1));
}

#[test]
fn a_device_that_a_batch_refused_can_be_recorded_again() {
    let (devices, ..) = registry();
    let added: Vec<_> = (DEVICES..2 * DEVICES).map(|n| eight(first(n))).collect();
    let mut refused = 0;
    let ((), removed) = devices
        .update(|batch| -> Result<(), Refusal> {
            for device in &added {
                LEFT.set(Some(0));
                let error = batch.add_port_dev(device.clone()).err();
                LEFT.set(None);
                if let Some(error) = error {
                    assert_eq!(error, Refusal::NoMemory);
                    refused += 1;
                    batch.add_port_dev(device.clone())?;
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(refused > 2 && removed.is_empty(), "{refused}");
    assert_eq!(devices.snapshot().port().count(), 2 * DEVICES);
}

#[test]
fn replacements_by_iter_mut_wait_until_there_is_memory() {
    let (mut devices, ids, _) = registry();
    let heir = eight(first(DEVICES));
    *devices.iter_mut_port_dev().nth(7).unwrap() = heir.clone();
    let remove = || devices.remove(ids[9]).map(drop);
    // The devices that are put back, and then the removal.
    let failed = until_it_succeeds(remove, || ());
    assert!(failed > 5, "{failed}");
    assert!(devices.find_port_dev(Port(first(DEVICES))).is_some());
    assert!(devices.find_port_dev(Port(first(7))).is_none());
    assert!(devices.find_port_dev(Port(first(9))).is_none());
    assert_eq!(devices.snapshot().port().count(), DEVICES - 1);
}

/// Counts its calls.
#[derive(Default)]
struct Counts {
    before: AtomicUsize,
    after: AtomicUsize,
}

impl Listener for Counts {
    fn before(&self, difference: &Difference) -> Result<(), Veto> {
        assert_eq!(difference.mapped().len(), DEVICES);
        self.before.fetch_add(1, Relaxed);
        Ok(())
    }

    fn after(&self, _: &Difference) {
        self.after.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_change_that_finds_no_memory_is_not_reported() {
    let (devices, ids, witness) = registry();
    let counts = Arc::new(Counts::default());
    let devices = devices.with_listener(counts.clone());
    let reported = || (counts.before.load(Relaxed), counts.after.load(Relaxed));
    let update = || {
        let updated = devices.update(|batch| -> Result<(), Refusal> {
            let mut places = (0..DEVICES).map(|n| ports(first(DEVICES + n)));
            ids.iter()
                .try_for_each(|id| batch.move_to(*id, places.next().unwrap()))
        });
        updated.map(drop)
    };
    let unchanged = unchanged(&devices, &witness);
    let failed = until_it_succeeds(update, || {
        unchanged();
        assert_eq!(reported(), (0, 0), "an unpublished change was reported");
    });
    // The record and the tables, and both lists of the difference as they grow.
    assert!(failed > 8, "{failed}");
    assert_eq!(reported(), (1, 1));
}

/// A device of many ranges does not cause an abort either: the list of its ranges is not copied.
#[test]
fn a_device_of_many_ranges_waits_too() {
    let (mut devices, ids, _) = registry();
    let range = |n| PortRange::new(Port(first(n)), Port(first(n)));
    for n in DEVICES..DEVICES + 100 {
        devices.map(ids[7], range(n)).unwrap();
    }
    drop(devices.iter_mut_port_dev());
    let find = || match devices.handle_port_read(Port(first(DEVICES)), AccessWidth::Byte) {
        Err(AxError::NoMemory) => Err(Refusal::NoMemory),
        read => {
            assert!(read.is_ok());
            Ok(())
        }
    };
    let failed = until_it_succeeds(find, || ());
    assert!(failed > 2, "{failed}");
}

/// Also under the policy with which a miss panics.
#[test]
fn an_access_that_finds_no_memory_for_the_tables_is_no_miss() {
    let mut devices = registry().0.with_unmapped(Unmapped::Panic);
    drop(devices.iter_mut_port_dev());
    let mut vcpu = devices.dispatcher();
    let (port, width) = (Port(first(7)), AccessWidth::Byte);
    LEFT.set(Some(0));
    let by_handle = vcpu.handle_port_read(port, width);
    LEFT.set(None);
    assert_eq!(by_handle, Err(AxError::NoMemory));
    let by_registry = || match devices.handle_port_read(port, width) {
        Err(AxError::NoMemory) => Err(Refusal::NoMemory),
        read => {
            assert_eq!(read, Ok(first(7).into()));
            Ok(())
        }
    };
    let failed = until_it_succeeds(by_registry, || ());
    assert!(failed > 2, "{failed}");
    assert_eq!(vcpu.handle_port_read(port, width), Ok(first(7).into()));
}
