//! Removal, moves and batches on the slot cell: against dispatches, against vCPUs' own handles, from
//! inside a handler, and against each other.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicUsize as Count, Ordering::SeqCst},
};

use super::{
    Bound::{Preemptions, Unbounded},
    check,
    ports::Ports,
    thread,
    watched::Watched,
};
use crate::{
    Batch, Device, DeviceId, Direction, Miss, Port, Refusal, Registry, Removed, Span, Vcpu,
};

type Devices = Registry<Ports<dyn Handle>>;

trait Handle: Send + Sync {
    fn read(&self) -> usize;

    fn write(&self, value: u64);
}

/// The memory of a device that no vCPU may be inside any more.
const POISON: usize = usize::MAX;

/// A read returns its memory, which is watched: an overwrite must come after every call of a handler.
struct Host {
    memory: Watched,
    /// The model's own bookkeeping, which loom need not see.
    drops: Arc<Count>,
}

impl Host {
    fn new(value: usize) -> (Arc<Self>, Arc<Count>) {
        let drops = Arc::new(Count::new(0));
        let device = Self {
            memory: Watched::new(value),
            drops: drops.clone(),
        };
        (Arc::new(device), drops)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.drops.fetch_add(1, SeqCst);
    }
}

impl Handle for Host {
    fn read(&self) -> usize {
        thread::yield_now();
        let value = self.memory.read();
        assert_ne!(value, POISON, "a vCPU entered a device that was quiescent");
        value
    }

    fn write(&self, _: u64) {}
}

fn at(port: u64) -> Span {
    Span::new(port, port).expect("it is one port")
}

fn registry() -> Arc<Devices> {
    Arc::new(Registry::new())
}

fn device(handler: Arc<dyn Handle>) -> Device<Ports<dyn Handle>> {
    Device::new(()).on::<Port>(handler)
}

/// A device that returns this value.
fn host(value: usize) -> Device<Ports<dyn Handle>> {
    device(Host::new(value).0)
}

/// Adds a device at port 1.
fn add(devices: &Devices, handler: Arc<dyn Handle>) -> DeviceId {
    devices.add::<Port>(device(handler), at(1)).unwrap()
}

/// Records a device at a port.
fn record(
    batch: &mut Batch<'_, Ports<dyn Handle>>,
    host: Device<Ports<dyn Handle>>,
    port: u64,
) -> Result<(), Refusal> {
    let id = batch.add(host)?;
    batch.map::<Port>(id, at(port))
}

fn read(devices: &Devices, port: u64) -> Result<usize, Miss> {
    devices.dispatch::<Port, _>(port, 0, |hit| hit.handler().read())
}

fn read_by(vcpu: &mut Vcpu<Arc<Devices>>, port: u64) -> Result<usize, Miss> {
    vcpu.dispatch::<Port, _>(Direction::Read, port, 0, |hit| hit.handler().read())
}

/// Overwrites the memory of a device that no vCPU can be inside any more.
fn poison_if_quiescent(device: &Host, removed: &Removed<Ports<dyn Handle>>) {
    if removed.is_quiescent() {
        device.memory.write(POISON);
    }
}

/// The result of a dispatch to a device that is being removed.
fn answered_or_missed(read: Result<usize, Miss>) {
    assert!(matches!(read, Ok(1) | Err(Miss::Unmapped)));
}

#[test]
fn a_removal_against_a_dispatch() {
    check("remove, dispatch", 500, Preemptions(3), || {
        let devices = registry();
        let (device, drops) = Host::new(1);
        let id = add(&devices, device.clone());
        let other = devices.clone();
        let vcpu = thread::spawn(move || answered_or_missed(read(&other, 1)));
        let removed = devices.remove(id).unwrap();
        poison_if_quiescent(&device, &removed);
        assert_eq!(read(&devices, 1), Err(Miss::Unmapped));
        vcpu.join().expect("the vCPU panicked");
        drop(device);
        let Ok(device) = removed.wait(1) else {
            panic!("the vCPU has left, but the device is not quiescent");
        };
        let counts = device.handler::<Port>().map(Arc::strong_count);
        assert_eq!((counts, drops.load(SeqCst)), (Some(1), 0));
    });
}

#[test]
fn a_removal_against_a_vcpus_handle() {
    check("remove, handle", 1_000, Preemptions(3), || {
        let devices = registry();
        let (device, _) = Host::new(1);
        let id = add(&devices, device.clone());
        let mut vcpu = Vcpu::new(devices.clone());
        vcpu.refresh();
        let vcpu = thread::spawn(move || {
            answered_or_missed(read_by(&mut vcpu, 1));
            vcpu.refresh();
            answered_or_missed(read_by(&mut vcpu, 1));
            vcpu
        });
        let removed = devices.remove(id).unwrap();
        poison_if_quiescent(&device, &removed);
        let mut vcpu = vcpu.join().expect("the vCPU panicked");
        // The handle may have refreshed before the removal, and then still holds the tables.
        vcpu.park();
        assert!(removed.is_quiescent());
        assert_eq!(read_by(&mut vcpu, 1), Err(Miss::Unmapped));
    });
}

/// If its `Removed` is dropped early, a device is dropped once, with the last table that lists it.
#[test]
fn a_removal_that_no_thread_waits_for() {
    check("remove, drop, dispatch", 2_000, Unbounded, || {
        let devices = registry();
        let (device, drops) = Host::new(1);
        let id = add(&devices, device);
        let other = devices.clone();
        let vcpu = thread::spawn(move || answered_or_missed(read(&other, 1)));
        drop(devices.remove(id).unwrap());
        vcpu.join().expect("the vCPU panicked");
        devices.reclaim();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// A device that moves itself to the port that is written to it.
struct Moves {
    registry: Weak<Devices>,
    id: OnceLock<DeviceId>,
}

impl Handle for Moves {
    fn read(&self) -> usize {
        1
    }

    fn write(&self, to: u64) {
        let devices = self.registry.upgrade().expect("the registry is in use");
        let id = *self.id.get().expect("it is registered");
        devices.remap::<Port>(id, at(to)).expect("the port is free");
    }
}

fn with_one_that_moves() -> Arc<Devices> {
    let devices = registry();
    let device = Arc::new(Moves {
        registry: Arc::downgrade(&devices),
        id: OnceLock::new(),
    });
    let id = add(&devices, device.clone());
    device.id.set(id).unwrap();
    devices
}

/// A vCPU that reads the old port and then the new one finds the device at one of them. In the other order, it does
/// not find the device at both.
#[test]
fn a_move_from_a_handler() {
    check(
        "move from a handler, dispatches",
        1_000,
        Preemptions(3),
        || {
            let devices = with_one_that_moves();
            let other = devices.clone();
            let vcpu = thread::spawn(move || {
                if read(&other, 1).is_err() {
                    assert_eq!(read(&other, 2), Ok(1), "the device is at neither port");
                } else if read(&other, 2).is_ok() {
                    assert!(read(&other, 1).is_err(), "the device is at both ports");
                }
            });
            let written = devices.dispatch::<Port, _>(1, 0, |hit| hit.handler().write(2));
            assert_eq!(written, Ok(()));
            assert!(read(&devices, 1).is_err());
            assert_eq!(read(&devices, 2), Ok(1));
            vcpu.join().expect("the vCPU panicked");
        },
    );
}

/// A move and a hot-add to the same free port: one of the two is made completely, and nothing of the other.
#[test]
fn a_move_against_a_hot_add() {
    check("move, add", 700, Preemptions(3), || {
        let devices = registry();
        let id = add(&devices, Host::new(1).0);
        let other = devices.clone();
        let adder = thread::spawn(move || other.add::<Port>(host(2), at(2)).is_ok());
        let moved = devices.move_to::<Port>(id, at(1), at(2));
        let added = adder.join().expect("the adder panicked");
        assert_ne!(moved.is_ok(), added, "port 2 has one owner");
        assert_eq!(read(&devices, 1).is_ok(), added);
        assert_eq!(read(&devices, 2), Ok(if added { 2 } else { 1 }));
    });
}

/// Two batches that conflict: one of the two is made completely, and nothing of the other.
#[test]
fn two_batches_that_conflict() {
    check("update, update", 1_000, Preemptions(3), || {
        let devices = registry();
        let batch = |devices: &Devices, own: u64| {
            devices
                .update(|batch| {
                    record(batch, host(1), own)?;
                    record(batch, host(1), 3)
                })
                .is_ok()
        };
        let other = devices.clone();
        let other = thread::spawn(move || batch(&other, 1));
        let ours = batch(&devices, 2);
        let theirs = other.join().expect("the other panicked");
        assert_ne!(ours, theirs, "port 3 has one owner");
        assert_eq!(
            [1, 2, 3].map(|port| read(&devices, port).is_ok()),
            [theirs, ours, true]
        );
    });
}

/// A reader sees a batch completely or not at all.
#[test]
fn a_batch_against_a_dispatch() {
    check("update, dispatch", 2_000, Unbounded, || {
        let devices = registry();
        let id = add(&devices, Host::new(1).0);
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            let ports: Vec<_> = other.view(|view| {
                let spans = view.spans::<Port>();
                spans.map(|hit| hit.span().first()).collect()
            });
            assert!(matches!(ports[..], [1] | [2, 3]), "{ports:?}");
        });
        let ((), removed) = devices
            .update(|batch| {
                batch.remove(id)?;
                record(batch, host(2), 2)?;
                record(batch, host(3), 3)
            })
            .unwrap();
        vcpu.join().expect("the vCPU panicked");
        assert!(removed.iter().all(Removed::is_quiescent));
    });
}

/// Two devices exchange their ports. Each port always has an owner, and one device never owns both ports
/// at the same time.
#[test]
fn a_swap_against_dispatches() {
    check("swap, dispatches", 1_200, Preemptions(3), || {
        let devices = registry();
        let [one, two] = [1, 2].map(|n| devices.add::<Port>(host(n), at(n as u64)).unwrap());
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            let owner = |port| read(&other, port).expect("a port has no owner");
            let (first, second) = (owner(1), owner(2));
            assert!(first == 1 || second == 1, "a port was swapped back");
            let owners: Vec<_> = other.view(|view| {
                let spans = view.spans::<Port>();
                spans.map(|hit| hit.handler().read()).collect()
            });
            match first {
                1 => assert!(matches!(owners[..], [1, 2] | [2, 1]), "{owners:?}"),
                _ => assert_eq!(owners, [2, 1]),
            }
        });
        let swap = |batch: &mut Batch<'_, Ports<dyn Handle>>| {
            batch.move_to::<Port>(one, at(1), at(2))?;
            batch.move_to::<Port>(two, at(2), at(1))
        };
        assert!(devices.update::<_, Refusal>(swap).is_ok());
        assert_eq!((read(&devices, 1), read(&devices, 2)), (Ok(2), Ok(1)));
        vcpu.join().expect("the vCPU panicked");
    });
}
