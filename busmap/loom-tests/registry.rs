//! The registry on the slot cell: dispatches against hot-adds.

use std::sync::{
    Arc,
    atomic::{AtomicBool as Flag, Ordering::SeqCst},
};

use super::{
    Bound::{Preemptions, Unbounded},
    check,
    ports::Ports,
    thread,
};
use crate::{
    BusId, Device, DeviceId, Direction, Miss, Port, Refusal, Registry, Span, Vcpu, Withdrawn,
    sync::{AtomicBool, Ordering},
};

type Devices = Registry<Ports<Reads>>;

/// A handler that returns its own number, and records its drop.
struct Reads {
    value: u64,
    /// The model's own bookkeeping, which loom need not see.
    dropped: Arc<Flag>,
}

impl Reads {
    fn device(value: u64) -> (Device<Ports<Reads>>, Arc<Flag>) {
        let dropped = Arc::new(Flag::new(false));
        let handler = Arc::new(Self {
            value,
            dropped: dropped.clone(),
        });
        (Device::new(()).on::<Port>(handler), dropped)
    }

    fn read(&self) -> u64 {
        thread::yield_now();
        assert!(
            !self.dropped.load(SeqCst),
            "a device was freed under a dispatch"
        );
        self.value
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

fn span(first: u64, last: u64) -> Span {
    Span::new(first, last).expect("the last is not below the first")
}

/// Adds a device that owns these ports and returns the number of the first.
fn try_add(devices: &Devices, first: u64, last: u64) -> Result<DeviceId, Refusal> {
    let (device, _) = Reads::device(first);
    Ok(devices.add::<Port>(device, span(first, last))?)
}

/// Adds a device that owns one port and returns its number.
fn add(devices: &Devices, port: u64) -> DeviceId {
    try_add(devices, port, port).expect("the port is free")
}

/// A registry with a device at each of `ports`.
fn registry(ports: &[u64]) -> Arc<Devices> {
    let devices = Registry::new();
    for &port in ports {
        add(&devices, port);
    }
    Arc::new(devices)
}

fn read(devices: &Devices, port: u64) -> Result<u64, Miss> {
    devices.dispatch::<Port, _>(port, 0, |hit| hit.handler().read())
}

fn read_by(vcpu: &mut Vcpu<Arc<Devices>>, port: u64) -> Result<u64, Miss> {
    vcpu.dispatch::<Port, _>(Direction::Read, port, 0, |hit| hit.handler().read())
}

#[test]
fn a_dispatch_against_a_hot_add() {
    check("dispatch, add", 4_000, Unbounded, || {
        let devices = registry(&[1]);
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            assert_eq!(read(&other, 1), Ok(1), "a device that is there was missed");
            let new = read(&other, 2);
            assert!(matches!(new, Ok(2) | Err(Miss::Unmapped)));
            if new.is_ok() {
                assert_eq!(read(&other, 2), Ok(2), "a device that was there is gone");
            }
        });
        add(&devices, 2);
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn two_hot_adds() {
    check("add, add", 3_000, Preemptions(3), || {
        let devices = registry(&[]);
        let other = devices.clone();
        let adder = thread::spawn(move || add(&other, 1));
        let ours = add(&devices, 2);
        let theirs = adder.join().expect("the adder panicked");
        assert_ne!(ours, theirs);
        assert_eq!(
            (read(&devices, 1), read(&devices, 2)),
            (Ok(1), Ok(2)),
            "one was lost"
        );
    });
}

#[test]
fn of_two_hot_adds_that_overlap_one_is_refused() {
    check("add, add the same", 800, Preemptions(3), || {
        let devices = registry(&[]);
        let other = devices.clone();
        let adder = thread::spawn(move || try_add(&other, 1, 2));
        let ours = try_add(&devices, 2, 3);
        let theirs = adder.join().expect("the adder panicked");
        let (id, refusal) = match (ours, theirs) {
            (Ok(id), Err(refusal)) | (Err(refusal), Ok(id)) => (id, refusal),
            both => panic!("not exactly one succeeded: {both:?}"),
        };
        assert!(matches!(refusal, Refusal::Overlap { owner, .. } if owner == id));
    });
}

#[test]
fn a_thread_that_learns_of_an_add_sees_it() {
    check("add, flag", 5, Unbounded, || {
        let devices = registry(&[]);
        let added = Arc::new(AtomicBool::new(false));
        let (other, flag) = (devices.clone(), added.clone());
        let vcpu = thread::spawn(move || {
            if flag.load(Ordering::Acquire) {
                assert_eq!(
                    read(&other, 1),
                    Ok(1),
                    "a device that was announced was missed"
                );
            }
        });
        add(&devices, 1);
        added.store(true, Ordering::Release);
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn a_dispatch_against_the_sweep_of_a_second_writer() {
    check("dispatch, add, reclaim", 7_000, Preemptions(3), || {
        let devices = registry(&[1]);
        let (vcpu, sweeper) = (devices.clone(), devices.clone());
        let vcpu = thread::spawn(move || assert_eq!(read(&vcpu, 1), Ok(1)));
        let sweeper = thread::spawn(move || sweeper.reclaim());
        add(&devices, 2);
        vcpu.join().expect("the vCPU panicked");
        sweeper.join().expect("the sweeper panicked");
    });
}

/// The result of `read`, which is repeated if the withdrawn devices had to be put back.
fn restored(
    devices: &Devices,
    withdrawn: &[Withdrawn<Ports<Reads>>],
    mut read: impl FnMut() -> Result<u64, Miss>,
) -> Result<u64, Miss> {
    match read() {
        Err(Miss::Withdrawn) => {
            devices.restore(withdrawn).expect("they fit");
            read()
        }
        done => done,
    }
}

#[test]
fn the_first_uses_after_a_withdrawal() {
    check("withdraw, first uses", 1_500, Preemptions(3), || {
        let mut devices = Registry::new();
        let (old, dropped) = Reads::device(1);
        let id = devices.add::<Port>(old, span(1, 1)).unwrap();
        let withdrawn = devices.withdraw();
        devices.reclaim();
        let (new, _) = Reads::device(2);
        let replaced = withdrawn[0].replaced(new, vec![(BusId::Port, span(2, 2))]);
        let devices = Arc::new((devices, [replaced]));
        let read_or_restore = |(devices, withdrawn): &(Devices, [Withdrawn<Ports<Reads>>; 1]),
                               port| {
            restored(devices, withdrawn, || read(devices, port))
        };
        let other = devices.clone();
        let vcpu = thread::spawn(move || assert_eq!(read_or_restore(&other, 2), Ok(2)));
        assert_eq!(read_or_restore(&devices, 1), Err(Miss::Unmapped));
        assert_eq!(read(&devices.0, 2), Ok(2));
        assert_eq!(devices.0.find::<Port>(2).map(|(id, _)| id), Some(id));
        vcpu.join().expect("the vCPU panicked");
        assert!(!dropped.load(SeqCst), "`withdrawn` still holds it");
        drop(withdrawn);
        assert!(dropped.load(SeqCst), "the registry still has it");
    });
}

/// A handle may hold the empty tables of the withdrawal while other threads put the devices back.
#[test]
fn a_handles_first_uses_after_a_withdrawal() {
    check("handles, withdraw", 1_000, Preemptions(3), || {
        let mut devices = registry(&[1]);
        let lent = Arc::get_mut(&mut devices).expect("no other thread has it");
        let withdrawn = Arc::new(lent.withdraw());
        let read_or_restore =
            |vcpu: &mut Vcpu<Arc<Devices>>, withdrawn: &[Withdrawn<Ports<Reads>>]| {
                let devices = vcpu.registry().clone();
                restored(&devices, withdrawn, || read_by(vcpu, 1))
            };
        let (mut vcpu, theirs) = (Vcpu::new(devices.clone()), withdrawn.clone());
        let mut other = Vcpu::new(devices);
        let vcpu = thread::spawn(move || assert_eq!(read_or_restore(&mut vcpu, &theirs), Ok(1)));
        assert_eq!(read_or_restore(&mut other, &withdrawn), Ok(1));
        vcpu.join().expect("the vCPU panicked");
    });
}

/// A vCPU has found a device through the registry itself, before the addition has ended.
#[test]
fn a_handle_does_not_miss_a_device_that_its_vcpu_has_found() {
    check("see, handle, add", 1_000, Preemptions(3), || {
        let devices = registry(&[]);
        let other = devices.clone();
        let mut vcpu = Vcpu::new(other.clone());
        let vcpu = thread::spawn(move || {
            // Perhaps while the addition is under way.
            vcpu.refresh();
            if read(&other, 1).is_ok() {
                assert_eq!(
                    read_by(&mut vcpu, 1),
                    Ok(1),
                    "a device that was seen is missed"
                );
            }
        });
        add(&devices, 1);
        vcpu.join().expect("the vCPU panicked");
    });
}

/// A vCPU has found through the registry itself that a device is gone, before the removal has ended.
#[test]
fn a_handle_does_not_find_a_device_that_its_vcpu_has_missed() {
    check("see, handle, remove", 1_000, Preemptions(4), || {
        let devices = Arc::new(Registry::new());
        let id = add(&devices, 1);
        let other = devices.clone();
        let mut vcpu = Vcpu::new(other.clone());
        let vcpu = thread::spawn(move || {
            // Perhaps while the removal is under way.
            vcpu.refresh();
            if read(&other, 1).is_err() {
                let found = read_by(&mut vcpu, 1);
                assert_eq!(
                    found,
                    Err(Miss::Unmapped),
                    "a device that was gone is found"
                );
            }
        });
        drop(devices.remove(id).unwrap());
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn everything_is_freed_with_the_registry() {
    check("dispatch, add, drop", 1_000, Unbounded, || {
        let devices = registry(&[]);
        let (device, dropped) = Reads::device(1);
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            let _ = read(&other, 1);
        });
        devices.add::<Port>(device, span(1, 1)).unwrap();
        vcpu.join().expect("the vCPU panicked");
        let devices = Arc::into_inner(devices).expect("the vCPU has ended");
        drop(devices);
        assert!(dropped.load(SeqCst));
    });
}

#[test]
fn a_vcpus_handle_against_a_hot_add() {
    check("handle, add", 8_000, Preemptions(4), || {
        let devices = registry(&[1]);
        let mut vcpu = Vcpu::new(devices.clone());
        let vcpu = thread::spawn(move || {
            assert_eq!(read_by(&mut vcpu, 1), Ok(1), "a device was missed");
            let new = read_by(&mut vcpu, 2);
            assert!(matches!(new, Ok(2) | Err(Miss::Unmapped)));
            if new.is_ok() {
                assert_eq!(
                    read_by(&mut vcpu, 2),
                    Ok(2),
                    "a device that was there is gone"
                );
            }
            assert_eq!(read_by(&mut vcpu, 1), Ok(1), "a device is gone");
        });
        add(&devices, 2);
        vcpu.join().expect("the vCPU panicked");
    });
}

/// A handle that drops tables while they are replaced and swept.
#[test]
fn a_handle_that_refreshes_and_parks() {
    check("refresh, park, add", 1_000, Preemptions(3), || {
        let devices = registry(&[1]);
        let mut vcpu = Vcpu::new(devices.clone());
        vcpu.refresh();
        let vcpu = thread::spawn(move || {
            vcpu.refresh();
            vcpu.park();
            assert_eq!(read_by(&mut vcpu, 1), Ok(1));
        });
        add(&devices, 2);
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn a_handle_misses_a_device_after_its_vcpu_learns_of_the_removal() {
    check("handle, remove, flag", 2_000, Preemptions(3), || {
        let devices = registry(&[]);
        let id = add(&devices, 1);
        let removed = Arc::new(AtomicBool::new(false));
        let mut vcpu = Vcpu::new(devices.clone());
        let flag = removed.clone();
        let vcpu = thread::spawn(move || {
            let _ = read_by(&mut vcpu, 1);
            if flag.load(Ordering::Acquire) {
                assert_eq!(
                    read_by(&mut vcpu, 1),
                    Err(Miss::Unmapped),
                    "a removed device is found"
                );
            }
        });
        drop(devices.remove(id).unwrap());
        removed.store(true, Ordering::Release);
        vcpu.join().expect("the vCPU panicked");
    });
}
