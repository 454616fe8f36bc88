//! Removal, moves and batches on the slot cell: against dispatches, against vCPUs' own handles, from
//! inside a handler, and against each other.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicUsize as Count, Ordering::SeqCst},
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::{
    Bound::{Preemptions, Unbounded},
    check,
    nodes::Watched,
    thread,
};
use crate::{
    Device, DeviceId, Dispatcher, Refusal, Removed, SharedVmDevices, ThreadSafe, Unmapped,
};

const WIDTH: AccessWidth = AccessWidth::Byte;

/// What a device's memory holds when nobody may be inside it any more.
const POISON: usize = usize::MAX;

/// Reads as what is in its memory, which is watched: who overwrites it must come after every handler.
struct Host {
    port: u16,
    memory: Watched,
    /// Plain bookkeeping of the model, which loom need not see.
    drops: Arc<Count>,
}

impl Host {
    fn new(port: u16) -> (Arc<Self>, Arc<Count>) {
        let drops = Arc::new(Count::new(0));
        let device = Self {
            port,
            memory: Watched::new(port.into()),
            drops: drops.clone(),
        };
        (Arc::new(device), drops)
    }

    fn at(port: u16) -> Arc<Self> {
        Self::new(port).0
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.drops.fetch_add(1, SeqCst);
    }
}

impl BaseDeviceOps<PortRange> for Host {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        at(self.port)
    }

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        thread::yield_now();
        let value = self.memory.read();
        assert_ne!(value, POISON, "a vCPU entered a device that was quiescent");
        Ok(value)
    }

    fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

fn at(port: u16) -> PortRange {
    PortRange::new(Port(port), Port(port))
}

fn registry() -> Arc<SharedVmDevices> {
    Arc::new(SharedVmDevices::default().with_unmapped(Unmapped::Error))
}

fn read(devices: &SharedVmDevices, port: u16) -> AxResult<usize> {
    devices.handle_port_read(Port(port), WIDTH)
}

fn read_by(vcpu: &mut Dispatcher<Arc<SharedVmDevices>>, port: u16) -> AxResult<usize> {
    vcpu.handle_port_read(Port(port), WIDTH)
}

/// Overwrites the memory of a device in which nobody can be any more.
fn poison_if_quiescent(device: &Host, removed: &Removed<ThreadSafe>) {
    if removed.is_quiescent() {
        device.memory.write(POISON);
    }
}

/// What a dispatch to a device gives that is being removed.
fn answered_or_missed(read: AxResult<usize>) {
    assert!(matches!(read, Ok(1) | Err(AxError::NotFound)));
}

#[test]
fn a_removal_against_a_dispatch() {
    check("remove, dispatch", 5_000, Preemptions(3), || {
        let devices = registry();
        let (device, drops) = Host::new(1);
        let id = devices.add_port_dev(device.clone()).unwrap();
        let other = devices.clone();
        let vcpu = thread::spawn(move || answered_or_missed(read(&other, 1)));
        let removed = devices.remove(id).unwrap();
        poison_if_quiescent(&device, &removed);
        assert_eq!(read(&devices, 1), Err(AxError::NotFound));
        vcpu.join().expect("the vCPU panicked");
        drop(device);
        let Ok(Device::Port(device)) = removed.wait(1) else {
            panic!("the vCPU has left, but the device is not quiescent");
        };
        assert_eq!((Arc::strong_count(&device), drops.load(SeqCst)), (1, 0));
    });
}

#[test]
fn a_removal_against_a_vcpus_handle() {
    check("remove, handle", 1_000, Preemptions(3), || {
        let devices = registry();
        let device = Host::at(1);
        let id = devices.add_port_dev(device.clone()).unwrap();
        let mut vcpu = Dispatcher::new(devices.clone());
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
        // It may have refreshed before the removal: then it holds the tables still.
        vcpu.park();
        assert!(removed.is_quiescent());
        assert_eq!(read_by(&mut vcpu, 1), Err(AxError::NotFound));
    });
}

/// What is dropped early goes with the last table that lists it, and once.
#[test]
fn a_removal_that_nobody_waits_for() {
    check("remove, drop, dispatch", 20_000, Unbounded, || {
        let devices = registry();
        let (device, drops) = Host::new(1);
        let id = devices.add_port_dev(device).unwrap();
        let other = devices.clone();
        let vcpu = thread::spawn(move || answered_or_missed(read(&other, 1)));
        drop(devices.remove(id).unwrap());
        vcpu.join().expect("the vCPU panicked");
        devices.reclaim();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// A device that moves itself, from the port at which it is to the next, when it is read.
struct Moves {
    registry: Weak<SharedVmDevices>,
    id: OnceLock<DeviceId>,
}

impl BaseDeviceOps<PortRange> for Moves {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        at(1)
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(port.0.into())
    }

    fn handle_write(&self, _: Port, _: AccessWidth, to: usize) -> AxResult {
        let devices = self.registry.upgrade().expect("the registry is in use");
        let id = *self.id.get().expect("it is registered");
        devices.move_to(id, at(to as u16))?;
        Ok(())
    }
}

fn with_one_that_moves() -> Arc<SharedVmDevices> {
    let devices = registry();
    let device = Arc::new(Moves {
        registry: Arc::downgrade(&devices),
        id: OnceLock::new(),
    });
    let id = devices.add_port_dev(device.clone()).unwrap();
    device.id.set(id).unwrap();
    devices
}

/// Whoever looks at the old port first finds the device at one of the two; at the new one first, not
/// at both.
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
                    assert_eq!(read(&other, 2), Ok(2), "the device is at neither port");
                } else if read(&other, 2).is_ok() {
                    assert!(read(&other, 1).is_err(), "the device is at both ports");
                }
            });
            devices.handle_port_write(Port(1), WIDTH, 2).unwrap();
            assert!(read(&devices, 1).is_err());
            assert_eq!(read(&devices, 2), Ok(2));
            vcpu.join().expect("the vCPU panicked");
        },
    );
}

/// Of a move and a hot-add into the range that it frees, and one that it takes, each is made whole.
#[test]
fn a_move_against_a_hot_add() {
    check("move, add", 5_000, Preemptions(3), || {
        let devices = registry();
        let id = devices.add_port_dev(Host::at(1)).unwrap();
        let other = devices.clone();
        let adder = thread::spawn(move || other.add_port_dev(Host::at(2)).is_ok());
        let moved = devices.move_to(id, at(2));
        let added = adder.join().expect("the adder panicked");
        assert_ne!(moved.is_ok(), added, "port 2 has one owner");
        assert_eq!(read(&devices, 1).is_ok(), added);
        assert_eq!(read(&devices, 2), Ok(if added { 2 } else { 1 }));
    });
}

/// Two batches that do not fit together: one is made whole, nothing of the other.
#[test]
fn two_batches_that_conflict() {
    check("update, update", 5_000, Preemptions(3), || {
        let devices = registry();
        let batch = |devices: &SharedVmDevices, own: u16| {
            devices
                .update(|batch| {
                    batch.add_port_dev(Host::at(own))?;
                    batch.add_port_dev(Host::at(3))?;
                    Ok::<_, Refusal>(())
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

/// A batch is seen whole or not at all.
#[test]
fn a_batch_against_a_dispatch() {
    check("update, dispatch", 20_000, Unbounded, || {
        let devices = registry();
        let id = devices.add_port_dev(Host::at(1)).unwrap();
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            let snapshot = other.snapshot();
            let ports: Vec<_> = snapshot.port().map(|(_, range, _)| range.start.0).collect();
            assert!(matches!(ports[..], [1] | [2, 3]), "{ports:?}");
        });
        let ((), removed) = devices
            .update(|batch| {
                batch.remove(id)?;
                batch.add_port_dev(Host::at(2))?;
                batch.add_port_dev(Host::at(3))?;
                Ok::<_, Refusal>(())
            })
            .unwrap();
        vcpu.join().expect("the vCPU panicked");
        assert!(removed[0].is_quiescent());
    });
}
