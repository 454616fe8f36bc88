//! `reindex`: the registry reads the device's range, and moves the device there.

use std::{
    cell::Cell,
    rc::{self, Rc},
    sync::{
        Arc, Barrier, Mutex, OnceLock,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
    thread,
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice::{AxVmDevices, DeviceId, Refusal, Span, ThreadSafe, Unbound};

use super::{By, sixteen, with_bar};
use support::{
    Bus, Device, Recorder, Sets, answer, owners, ranged, read_of, registry, shared_registry, size,
    span,
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

fn reindexing_asks_the_device<R: Bus + Send>() {
    let (devices, id) = with_bar::<R>(By::MoveTo);
    // Nothing to do.
    assert_eq!(devices.reindex(id), Ok(()));
    assert_eq!(R::read(&*devices, 0x1f, BYTE), Ok(15));
    // The tables contain 0x30; the device still returns its original range.
    let fixed = R::add(&*devices, Recorder::silent(1, 0x20, 0x2f)).unwrap();
    devices.move_to(fixed, R::covering(0x30, 0x3f)).unwrap();
    assert_eq!(R::read(&*devices, 0x30, QWORD), Ok(answer(1, 0x30)));
    assert_eq!(devices.reindex(fixed), Ok(()));
    assert_eq!(R::read(&*devices, 0x20, QWORD), Ok(answer(1, 0x20)));
    assert_eq!(R::read(&*devices, 0x30, BYTE), Err(AxError::NotFound));
    // Another device now owns the range that it returns.
    devices.move_to(fixed, R::covering(0x30, 0x3f)).unwrap();
    devices.move_to(id, R::covering(0x28, 0x2f)).unwrap();
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: Span::new(0x20, 0x2f).unwrap(),
        owner: id,
        owned: Span::new(0x28, 0x2f).unwrap(),
    };
    assert_eq!(devices.reindex(fixed), Err(overlap));
    assert_eq!(R::read(&*devices, 0x30, QWORD), Ok(answer(1, 0x30)));
}

fn reindexing_a_busy_serialized_device_leaves_it_where_it_was<R: Bus + Send>() {
    let (devices, id) = with_bar::<R>(By::Reindex);
    let map = devices.snapshot().to_string();
    // Inside its handler it returns an empty range.
    let refused = R::write(&*devices, 0x10, BYTE, 0x40);
    assert_eq!(refused, Err(AxError::InvalidInput));
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(R::read(&*devices, 0x13, BYTE), Ok(3));
    assert_eq!(devices.reindex(id), Ok(()));
}

/// The state of a device that grows by one address at each read.
#[derive(Default)]
struct Grows {
    devices: OnceLock<(rc::Weak<AxVmDevices>, DeviceId)>,
    reads: Cell<usize>,
}

impl Grows {
    fn read(&self) -> AxResult<usize> {
        self.reads.set(self.reads.get() + 1);
        let (devices, id) = self.devices.get().unwrap();
        devices.upgrade().unwrap().reindex(*id)?;
        Ok(self.reads.get())
    }
}

fn a_device_without_a_lock_may_be_reindexed_in_its_own_handler<R: Bus + Send>() {
    let devices = Rc::new(registry());
    let range = |grows: &Grows| R::covering(0x10, 0x10 + grows.reads.get());
    let read = |grows: &Grows, _| grows.read();
    let device = Arc::new(Device::new(Grows::default(), range, read));
    let id = R::add(&*devices, device.clone()).unwrap();
    let own = (Rc::downgrade(&devices), id);
    assert!(device.state().devices.set(own).is_ok());
    let limit = R::add(&*devices, Recorder::silent(1, 0x13, 0x13)).unwrap();
    let read = |at| R::read(&*devices, at, BYTE);
    assert_eq!([0x10, 0x11].map(read), [Ok(1), Ok(2)]);
    assert_eq!(read(0x12), Err(AxError::AlreadyExists), "what reindex gave");
    assert_eq!(read(0x13), read_of::<R>(1, 0x13));
    assert!(devices.remove(limit).unwrap().wait(0).is_ok());
    assert_eq!([0x10, 0x14].map(read), [Ok(4), Ok(5)]);
}

/// Two vCPUs program one BAR, and the first is preempted after its device has returned its range.
fn the_last_reindex_wins<R: Bus>() {
    let devices = shared_registry();
    let range = Arc::new(Mutex::new(sixteen::<R>(0x10)));
    let preempts = Arc::new(AtomicBool::new(false));
    let barriers = Arc::new((Barrier::new(2), Barrier::new(2)));
    let bar = {
        let (range, preempts, barriers) = (range.clone(), preempts.clone(), barriers.clone());
        ranged(move || {
            let given = *range.lock().unwrap();
            if preempts.swap(false, Relaxed) {
                barriers.0.wait();
                barriers.1.wait();
            }
            given
        })
    };
    let id = R::add(&devices, bar).unwrap();
    let program = |first| {
        *range.lock().unwrap() = sixteen(first);
        devices.reindex(id)
    };
    thread::scope(|scope| {
        preempts.store(true, Relaxed);
        let first = scope.spawn(|| program(0x20));
        barriers.0.wait();
        assert_eq!(program(0x40), Ok(()));
        barriers.1.wait();
        assert_eq!(first.join().unwrap(), Ok(()));
    });
    let all = [(id, sixteen::<R>(0x40))];
    assert_eq!(owners::<R, ThreadSafe>(&devices.snapshot()), all);
}

fn threads_that_reprogram_a_device_leave_it_in_its_last_range<R: Bus>() {
    const ROUNDS: usize = size(60, 2);
    const THREADS: usize = 3;
    let devices = shared_registry();
    let range = Arc::new(Mutex::new(sixteen::<R>(0x10)));
    let says = range.clone();
    let bar = ranged(move || {
        let given = *says.lock().unwrap();
        // Time for another thread to program it.
        thread::yield_now();
        given
    });
    let id = R::add(&devices, bar).unwrap();
    let done = AtomicBool::new(false);
    // Each thread has its own ranges, some of which overlap those of the others.
    let program = |thread: usize, step: usize| {
        *range.lock().unwrap() = sixteen(0x10 + thread * 8 + step % 3 * 0x40);
        // Repeats, regardless of how often the others move it.
        while devices.reindex(id) == Err(Refusal::UnstableRange { id, bus: R::BUS }) {}
    };
    thread::scope(|scope| {
        let stops = Sets(&done);
        scope.spawn(|| {
            while !done.load(Acquire) {
                for at in (0x10..0xc0).step_by(8) {
                    let read = R::read(&devices, at, BYTE);
                    assert!(read == Ok(1) || read == Err(AxError::NotFound), "{read:?}");
                }
            }
        });
        for _ in 0..ROUNDS {
            thread::scope(|round| {
                for thread in 0..THREADS {
                    let program = &program;
                    round.spawn(move || (0..4).for_each(|step| program(thread, step)));
                }
            });
            let all = owners::<R, ThreadSafe>(&devices.snapshot());
            assert_eq!(all, [(id, *range.lock().unwrap())]);
        }
        drop(stops);
    });
}

fn a_range_that_differs_at_each_call_is_unstable<R: Bus>() {
    let devices = registry();
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = asked.clone();
    let unstable = ranged(move || sixteen::<R>(0x10 + asks.fetch_add(1, Relaxed) % 2 * 0x20));
    let id = R::add(&devices, unstable).unwrap();
    let bus = R::BUS;
    let refusal = Refusal::UnstableRange { id, bus };
    assert_eq!(devices.reindex(id), Err(refusal));
    // Once when it was added, and once more than it was moved.
    assert_eq!(asked.load(Relaxed), 1 + 101);
    assert_eq!(
        refusal.to_string(),
        format!("device {id} returns a different range on bus {bus} at each call")
    );
    assert_eq!(AxError::from(refusal), AxError::ResourceBusy);
    // It has one of the two ranges, and can be moved and removed.
    let all = owners::<R, Unbound>(&devices.snapshot());
    let either = [0x10, 0x30].map(|first| [(id, sixteen::<R>(first))].to_vec());
    assert!(either.contains(&all), "{all:?}");
    devices.move_to(id, sixteen::<R>(0x80)).unwrap();
    assert_eq!(R::read(&devices, 0x8f, BYTE), Ok(1));
    assert!(devices.remove(id).unwrap().wait(0).is_ok());
}

/// Ranges that it returned earlier, and cannot have, do not matter.
fn reindexing_ends_when_the_range_becomes_stable<R: Bus>() {
    for (rest, stays) in [(7, false), (5, true)] {
        let devices = registry();
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = asked.clone();
        let device = ranged(move || sixteen::<R>(0x10 * asks.fetch_add(1, Relaxed).min(rest)));
        let id = R::add(&devices, device).unwrap();
        let other = R::add(&devices, Recorder::silent(1, 0x54, 0x54)).unwrap();
        let overlap = Refusal::Overlap {
            bus: R::BUS,
            wanted: span(0x50, 0x5f),
            owner: other,
            owned: span(0x54, 0x54),
        };
        let expected = if stays { Err(overlap) } else { Ok(()) };
        assert_eq!(devices.reindex(id), expected);
        let (there, at) = (R::covering(0x54, 0x54), if stays { 0x40 } else { 0x70 });
        let mut all = owners::<R, Unbound>(&devices.snapshot());
        all.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(all, [(id, sixteen::<R>(at)), (other, there)]);
    }
}

on_every_bus!(
    the_last_reindex_wins,
    threads_that_reprogram_a_device_leave_it_in_its_last_range,
    a_range_that_differs_at_each_call_is_unstable,
    reindexing_ends_when_the_range_becomes_stable,
    reindexing_asks_the_device,
    reindexing_a_busy_serialized_device_leaves_it_where_it_was,
    a_device_without_a_lock_may_be_reindexed_in_its_own_handler,
);
