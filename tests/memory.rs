//! The memory that the registry allocates, keeps and frees, counted by the global allocator for each thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Arc, Barrier, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed},
        },
    },
    thread,
};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddr},
};
use axdevice::{Dispatcher, SharedVmDevices, Unmapped};
use axdevice_base::BaseDeviceOps;
use support::{Access, Bus, Sets, device, size_emulated};

/// The allocations of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Heap {
    allocated: usize,
    freed: usize,
    /// Bytes allocated minus bytes freed. Another thread may have allocated the freed bytes.
    live: isize,
}

thread_local! {
    static HEAP: Cell<Heap> = const {
        Cell::new(Heap {
            allocated: 0,
            freed: 0,
            live: 0,
        })
    };
}

/// The allocations of this thread so far.
fn heap() -> Heap {
    HEAP.get()
}

struct Counting;

// SAFETY: every call is forwarded unchanged to the system's allocator. The counters need no memory: their initial
// values are constants, and they have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let heap = HEAP.get();
        HEAP.set(Heap {
            allocated: heap.allocated + 1,
            live: heap.live + layout.size() as isize,
            ..heap
        });
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let heap = HEAP.get();
        HEAP.set(Heap {
            freed: heap.freed + 1,
            live: heap.live - layout.size() as isize,
            ..heap
        });
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number of devices and of changes.
const MANY: usize = size_emulated(10_000, 500, 60);

/// A number of devices that fits on every bus, with room for each.
const SOME: usize = MANY / 10;

/// A device that owns 16 addresses. A read returns the first address; a write fails.
fn sixteen<R: Bus>(first: usize) -> Arc<impl BaseDeviceOps<R> + Send + Sync> {
    device::<R>(
        first,
        first + 15,
        move |Access { written, .. }| match written {
            None => Ok(first),
            Some(_) => Err(AxError::Io),
        },
    )
}

/// Lets this thread make its one-time allocations: mainly the cell's node.
fn warm_up() {
    let devices = SharedVmDevices::default();
    devices.add_mmio_dev(sixteen(0)).unwrap();
    assert!(devices.find_mmio_dev(0.into()).is_some());
    assert_eq!(devices.iter_mmio_dev().count(), 1);
}

/// A registry with `n` MMIO devices; `then` is called after each addition.
fn registry(n: usize, then: impl Fn(&SharedVmDevices)) -> SharedVmDevices {
    let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
    for place in 0..n {
        devices.add_mmio_dev(sixteen(place * 16)).unwrap();
        then(&devices);
    }
    devices
}

/// The bytes of the result of `make`.
fn bytes<T>(make: impl FnOnce() -> T) -> isize {
    let before = heap().live;
    let made = make();
    let taken = heap().live - before;
    drop(made);
    assert_eq!(heap().live, before, "everything that was made is freed");
    taken
}

#[test]
fn after_many_adds_the_replaced_tables_are_gone() {
    warm_up();
    let few = bytes(|| registry(SOME, |_| ()));
    let many = bytes(|| registry(MANY, |_| ()));
    // Linear in the number of devices. If all earlier tables were kept, it would be quadratic.
    let times = (MANY / SOME) as isize;
    assert!(
        many <= few * times * 11 / 10,
        "{few} for {SOME}, {many} for {MANY}"
    );
}

#[test]
fn iterating_after_every_add_keeps_one_count_for_each_device() {
    warm_up();
    let lend = |devices: &SharedVmDevices| devices.iter_mmio_dev().for_each(drop);
    let plain = bytes(|| registry(SOME, |_| ()));
    let once = bytes(|| {
        let devices = registry(SOME, |_| ());
        lend(&devices);
        devices
    });
    let always = bytes(|| registry(SOME, lend));
    assert_eq!(always, once);
    // An `Arc`, its bus, and whether the place is taken. The number of places doubles each time that all are taken.
    let place = 4 * size_of::<usize>();
    let kept = (SOME * place) as isize..=(3 * SOME.max(32) * place) as isize;
    let more = once - plain;
    assert!(kept.contains(&more), "{more} for {SOME} devices");
}

#[test]
fn looking_without_lending_keeps_nothing() {
    warm_up();
    let plain = bytes(|| registry(SOME, |_| ()));
    let looked = bytes(|| {
        registry(SOME, |devices| {
            let mut visited = 0;
            devices.for_each_mmio_dev(|_, _, _| visited += 1);
            assert_eq!(devices.iter_mmio_dev().count(), visited);
        })
    });
    assert_eq!(looked, plain);
}

#[test]
fn iterating_does_not_hold_a_device_more_often() {
    warm_up();
    let count = |iterate: bool| {
        let devices = registry(3, |_| ());
        let device = sixteen::<GuestPhysAddrRange>(0x1000);
        devices.add_mmio_dev(device.clone()).unwrap();
        for n in 0..20 {
            devices.add_mmio_dev(sixteen(0x2000 + n * 16)).unwrap();
            if iterate {
                assert_eq!(devices.iter_mmio_dev().count(), 5 + n);
                drop(devices.snapshot());
            }
        }
        assert_eq!(Arc::weak_count(&device), 0);
        (Arc::strong_count(&device), Arc::downgrade(&device))
    };
    let ((plain, gone), (iterated, gone_too)) = (count(false), count(true));
    assert_eq!(plain, iterated);
    assert!(gone.upgrade().is_none() && gone_too.upgrade().is_none());
}

#[test]
fn repeated_replacements_do_not_accumulate_memory() {
    warm_up();
    let replaced = |times: usize| {
        bytes(|| {
            let mut devices = registry(SOME.min(100), |_| ());
            for _ in 0..times {
                for item in devices.iter_mut_mmio_dev() {
                    *item = sixteen(item.address_range().start.as_usize());
                }
                assert_eq!(devices.iter_mmio_dev().count(), SOME.min(100));
            }
            devices
        })
    };
    assert_eq!(replaced(2), replaced(40));
}

#[test]
fn refusals_finds_and_snapshots_leave_nothing_behind() {
    warm_up();
    let devices = registry(SOME.min(100), |_| ());
    let before = heap().live;
    for n in 0..SOME {
        assert!(devices.add_mmio_dev(sixteen(n % 90 * 16 + 3)).is_err());
        assert!(devices.find_mmio_dev((n % 90 * 16).into()).is_some());
        assert!(devices.snapshot().mmio().count() > 0);
        devices.reclaim();
    }
    assert_eq!(heap().live, before);
}

#[test]
fn a_handler_that_adds_holds_one_table_and_no_more() {
    warm_up();
    let make = || {
        let devices = Arc::new(SharedVmDevices::default());
        let weak = Arc::downgrade(&devices);
        let adds = device::<PortRange>(0, 0, move |_| {
            let devices: Arc<SharedVmDevices> = weak.upgrade().unwrap();
            for n in 0..SOME {
                devices.add_mmio_dev(sixteen(n * 16)).unwrap();
            }
            Ok(0)
        });
        devices.add_port_dev(adds.clone()).unwrap();
        (devices, adds)
    };
    let outside = bytes(|| {
        let (devices, adds) = make();
        assert!(adds.handle_read(Port(0), AccessWidth::Byte).is_ok());
        devices
    });
    let inside = |reclaim: bool| {
        bytes(|| {
            let (devices, _) = make();
            assert!(devices.handle_port_read(Port(0), AccessWidth::Byte).is_ok());
            if reclaim {
                devices.reclaim();
            }
            devices
        })
    };
    assert_eq!(inside(true), outside);
    // The table with one device, its retirement and no other.
    let held = inside(false) - outside;
    assert!((1..1_500).contains(&held), "{held}");
}

/// Asserts that accesses to `devices` neither allocate nor free on this thread.
fn dispatches_without_the_heap(devices: &SharedVmDevices, hits: usize, misses: usize) {
    let before = heap();
    for width in [AccessWidth::Byte, AccessWidth::Qword] {
        for n in 0..hits {
            let at = n * 16 + 8;
            let first = Ok(at - 8).map(|first| first & (usize::MAX >> (64 - 8 * width.size())));
            assert_eq!(devices.handle_mmio_read(at.into(), width), first);
            assert_eq!(devices.handle_port_read(Port(at as u16), width), first);
            assert_eq!(
                devices.handle_sys_reg_read(SysRegAddr(at), width),
                Ok(at - 8)
            );
            let failed = Err(AxError::Io);
            assert_eq!(devices.handle_mmio_write(at.into(), width, n), failed);
            assert_eq!(devices.handle_port_write(Port(at as u16), width, n), failed);
            assert_eq!(
                devices.handle_sys_reg_write(SysRegAddr(at), width, n),
                failed
            );
        }
        for n in 0..misses {
            let at = 0xf000 + n;
            assert!(devices.handle_mmio_read((at << 16).into(), width).is_ok());
            assert!(devices.handle_port_read(Port(at as u16), width).is_ok());
            assert_eq!(devices.handle_sys_reg_read(SysRegAddr(at), width), Ok(0));
            assert_eq!(
                devices.handle_mmio_write((at << 16).into(), width, n),
                Ok(())
            );
            assert_eq!(devices.handle_port_write(Port(at as u16), width, n), Ok(()));
            assert_eq!(
                devices.handle_sys_reg_write(SysRegAddr(at), width, n),
                Ok(())
            );
        }
        // Into the next device.
        assert!(
            devices
                .handle_mmio_read(15.into(), AccessWidth::Word)
                .is_ok()
        );
    }
    assert_eq!(heap(), before);
}

/// A registry with `n` devices on every bus, where misses float.
fn on_every_bus(n: usize) -> SharedVmDevices {
    let devices = registry(n, |_| ());
    for place in 0..n {
        devices.add_port_dev(sixteen(place * 16)).unwrap();
        devices.add_sys_reg_dev(sixteen(place * 16)).unwrap();
    }
    devices
}

#[test]
fn a_dispatch_neither_allocates_nor_frees() {
    warm_up();
    let devices = on_every_bus(SOME.min(500));
    dispatches_without_the_heap(&devices, SOME.min(500), SOME);
}

#[test]
fn a_dispatch_uses_no_heap_while_tables_are_replaced() {
    const HITS: usize = 4;
    let devices = on_every_bus(HITS);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                warm_up();
                while !done.load(Relaxed) {
                    dispatches_without_the_heap(&devices, HITS, HITS);
                }
            })
        });
        let stops = Sets(&done);
        for n in 0..SOME {
            let at = 0x10_0000 + n * 16;
            devices.add_mmio_dev(sixteen(at)).unwrap();
            if readers.iter().any(thread::ScopedJoinHandle::is_finished) {
                // A thread has failed: its panic propagates when the scope ends.
                break;
            }
        }
        drop(stops);
    });
    assert_eq!(devices.iter_mmio_dev().count(), HITS + SOME);
}

#[test]
fn a_handle_uses_no_heap_when_it_renews_its_tables() {
    const HITS: usize = 4;
    let devices = on_every_bus(HITS);
    let (started, done) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let vcpu = scope.spawn(|| {
            warm_up();
            let mut vcpu = devices.dispatcher();
            started.wait();
            let before = heap();
            // The last pass comes after all changes.
            let mut last = false;
            while !last {
                last = done.load(Acquire);
                for at in (0..2 * HITS).map(|n| n * 16) {
                    let answer = if at < HITS * 16 { at } else { usize::MAX };
                    let read = vcpu.handle_mmio_read(at.into(), AccessWidth::Qword);
                    assert_eq!(read, Ok(answer));
                    let read = vcpu.handle_port_read(Port(at as u16), AccessWidth::Qword);
                    assert_eq!(read, Ok(answer));
                }
                vcpu.park();
            }
            assert_eq!(heap(), before);
            vcpu.counters().mmio.refreshes
        });
        started.wait();
        let stops = Sets(&done);
        for n in 0..SOME {
            let at = 0x10_0000 + n * 16;
            devices.add_mmio_dev(sixteen(at)).unwrap();
        }
        drop(stops);
        assert!(vcpu.join().unwrap() > 0);
    });
}

/// Counting uses no heap: of more devices than the handle has room for, of devices that have reused the index of
/// removed ones, and of more missed addresses than it lists.
#[test]
fn a_handles_counts_use_no_heap() {
    warm_up();
    const ROUNDS: usize = 5;
    // More than a handle of a registry without devices has room for.
    const MORE: usize = 100;
    let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
    let mut vcpu = devices.dispatcher();
    vcpu.refresh();
    let mut answered = 0;
    for round in 0..ROUNDS {
        let added: Vec<_> = (0..MORE)
            .map(|n| devices.add_mmio_dev(sixteen(n * 16)).unwrap())
            .collect();
        let before = heap();
        for at in (0..2 * MORE).map(|n| n * 16) {
            let _ = vcpu.handle_mmio_read(at.into(), AccessWidth::Byte);
            let _ = vcpu.handle_mmio_write(at.into(), AccessWidth::Byte, 0);
        }
        vcpu.park();
        assert_eq!(heap(), before, "round {round}");
        answered += 2 * MORE as u64;
        for id in added {
            drop(devices.remove(id).unwrap());
        }
    }
    let profile = vcpu.profile();
    assert_eq!(profile.answered().total(), answered);
    assert_eq!(profile.mmio.total, answered);
    assert!(profile.others.total() > 0 && profile.removed.total() > 0);
    // A refresh makes room once; the room is freed with the handle.
    let ids: Vec<_> = (0..MORE)
        .map(|n| devices.add_mmio_dev(sixteen(n * 16)).unwrap())
        .collect();
    let before = heap();
    vcpu.refresh();
    let grown = heap();
    assert!(grown.live > before.live);
    vcpu.refresh();
    assert_eq!(heap(), grown, "there is room already");
    assert_eq!(ids.len(), MORE);
    drop(vcpu);
}

#[test]
fn a_handle_takes_less_than_4_kib_and_32_bytes_for_each_device() {
    warm_up();
    for n in [0, 1, 31, 32, 33, 64, SOME] {
        let devices = registry(n, |_| ());
        let taken = bytes(|| {
            let mut vcpu = Box::new(devices.dispatcher());
            vcpu.refresh();
            vcpu
        });
        // Room for whole groups of 32 devices.
        let stated = 4096 + 32 * n.next_multiple_of(32) as isize;
        assert!((1..=stated).contains(&taken), "{taken} for {n} devices");
    }
}

#[test]
fn a_handle_holds_the_tables_until_it_is_refreshed_or_parked() {
    warm_up();
    const DEVICES: usize = 50;
    // The bytes that `then` frees, after many changes.
    let freed = |then: fn(&mut Dispatcher<Arc<SharedVmDevices>>)| {
        let devices = Arc::new(registry(DEVICES, |_| ()));
        let mut vcpu = Dispatcher::new(devices.clone());
        vcpu.refresh();
        let before = heap().live;
        for n in 0..DEVICES {
            let at = 0x10_0000 + n * 16;
            devices.add_mmio_dev(sixteen(at)).unwrap();
        }
        let held = heap().live - before;
        then(&mut vcpu);
        // A refresh makes room to count the new devices.
        let room = heap().live - before - held;
        assert!(
            (0..=(32 * 2 * DEVICES) as isize).contains(&room),
            "`then` itself frees nothing"
        );
        devices.reclaim();
        held + room - (heap().live - before)
    };
    assert_eq!(freed(|_| ()), 0, "it holds the earlier tables");
    let refreshed = freed(Dispatcher::refresh);
    let parked = freed(Dispatcher::park);
    let read = freed(|vcpu| {
        assert!(vcpu.handle_mmio_read(0.into(), AccessWidth::Byte).is_ok());
    });
    assert!(refreshed > (DEVICES * size_of::<usize>()) as isize);
    assert_eq!([read, parked], [refreshed; 2]);
}

#[test]
fn nested_dispatches_use_no_heap() {
    warm_up();
    let devices = Arc::new(SharedVmDevices::default());
    let weak: Weak<SharedVmDevices> = Arc::downgrade(&devices);
    let down = device::<PortRange>(0, 31, move |Access { at, width, .. }| match at {
        0 => Ok(0),
        at => {
            let next = Port(at as u16 - 1);
            Ok(weak.upgrade().unwrap().handle_port_read(next, width)? + 1)
        }
    });
    devices.add_port_dev(down).unwrap();
    let before = heap();
    for depth in [1, 8, 9, 12, 31] {
        let read = devices.handle_port_read(Port(depth), AccessWidth::Byte);
        assert_eq!(read, Ok(depth.into()));
    }
    assert_eq!(heap(), before);
}
