//! The registry on the slot cell: dispatches against hot-adds.

use std::sync::{
    Arc,
    atomic::{AtomicBool as Flag, Ordering::SeqCst},
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::{
    Bound::{Preemptions, Unbounded},
    check, thread,
};
use crate::{
    Dispatcher, Refusal, SharedVmDevices, Unmapped,
    sync::{AtomicBool, Ordering},
};

const WIDTH: AccessWidth = AccessWidth::Byte;

/// Reads as its first port, and knows when it is dropped.
struct Device {
    ports: PortRange,
    /// Plain bookkeeping of the model, which loom need not see.
    dropped: Arc<Flag>,
}

impl Device {
    fn new(first: u16, last: u16) -> (Arc<Self>, Arc<Flag>) {
        let dropped = Arc::new(Flag::new(false));
        let device = Self {
            ports: PortRange::new(Port(first), Port(last)),
            dropped: dropped.clone(),
        };
        (Arc::new(device), dropped)
    }

    fn at(port: u16) -> Arc<Self> {
        Self::new(port, port).0
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

impl BaseDeviceOps<PortRange> for Device {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        self.ports
    }

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        thread::yield_now();
        assert!(
            !self.dropped.load(SeqCst),
            "a device was freed under a dispatch"
        );
        Ok(self.ports.start.0.into())
    }

    fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

/// A registry with a device at each of `ports`; misses are errors.
fn registry(ports: &[u16]) -> Arc<SharedVmDevices> {
    let devices = SharedVmDevices::default().with_unmapped(Unmapped::Error);
    for &port in ports {
        devices.add_port_dev(Device::at(port)).unwrap();
    }
    Arc::new(devices)
}

fn read(devices: &SharedVmDevices, port: u16) -> AxResult<usize> {
    devices.handle_port_read(Port(port), WIDTH)
}

#[test]
fn a_dispatch_against_a_hot_add() {
    check("dispatch, add", 200_000, Unbounded, || {
        let devices = registry(&[1]);
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            assert_eq!(read(&other, 1), Ok(1), "a device that is there was missed");
            let new = read(&other, 2);
            assert!(matches!(new, Ok(2) | Err(AxError::NotFound)));
            if new.is_ok() {
                assert_eq!(read(&other, 2), Ok(2), "a device that was there is gone");
            }
        });
        devices.add_port_dev(Device::at(2)).unwrap();
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn two_hot_adds() {
    check("add, add", 40_000, Preemptions(3), || {
        let devices = registry(&[]);
        let other = devices.clone();
        let adder =
            thread::spawn(move || other.add_port_dev(Device::at(1)).map_err(|e| e.refusal()));
        let ours = devices.add_port_dev(Device::at(2)).unwrap();
        let theirs = adder.join().expect("the adder panicked").unwrap();
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
    check("add, add the same", 5_000, Preemptions(3), || {
        let devices = registry(&[]);
        let other = devices.clone();
        let adder = thread::spawn(move || {
            let (device, _) = Device::new(1, 2);
            other.add_port_dev(device).map_err(|error| error.refusal())
        });
        let (device, _) = Device::new(2, 3);
        let ours = devices
            .add_port_dev(device)
            .map_err(|error| error.refusal());
        let theirs = adder.join().expect("the adder panicked");
        let (id, refusal) = match (ours, theirs) {
            (Ok(id), Err(refusal)) | (Err(refusal), Ok(id)) => (id, refusal),
            both => panic!("not one of the two: {both:?}"),
        };
        assert!(matches!(refusal, Refusal::Overlap { owner, .. } if owner == id));
    });
}

#[test]
fn whoever_learns_of_an_add_sees_it() {
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
        devices.add_port_dev(Device::at(1)).unwrap();
        added.store(true, Ordering::Release);
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn a_dispatch_against_the_sweep_of_a_second_writer() {
    check("dispatch, add, reclaim", 40_000, Preemptions(3), || {
        let devices = registry(&[1]);
        let (vcpu, sweeper) = (devices.clone(), devices.clone());
        let vcpu = thread::spawn(move || assert_eq!(read(&vcpu, 1), Ok(1)));
        let sweeper = thread::spawn(move || sweeper.reclaim());
        devices.add_port_dev(Device::at(2)).unwrap();
        vcpu.join().expect("the vCPU panicked");
        sweeper.join().expect("the sweeper panicked");
    });
}

#[test]
fn the_first_uses_after_iter_mut() {
    check("first uses after iter_mut", 20_000, Preemptions(3), || {
        let mut devices = SharedVmDevices::default().with_unmapped(Unmapped::Error);
        let (old, dropped) = Device::new(1, 1);
        devices.add_port_dev(old).unwrap();
        *devices.iter_mut_port_dev().next().unwrap() = Device::at(2);
        let devices = Arc::new(devices);
        let other = devices.clone();
        let vcpu = thread::spawn(move || assert_eq!(read(&other, 2), Ok(2)));
        assert_eq!(read(&devices, 1), Err(AxError::NotFound));
        assert_eq!(read(&devices, 2), Ok(2));
        vcpu.join().expect("the vCPU panicked");
        assert!(!dropped.load(SeqCst), "it is kept to be put back");
        drop(devices);
        assert!(dropped.load(SeqCst));
    });
}

/// A handle may hold the tables that stand in meanwhile, and others put the devices back.
#[test]
fn a_handles_first_uses_after_iter_mut() {
    check("handles, iter_mut", 1_000, Preemptions(3), || {
        let mut devices = registry(&[1]);
        let lent = Arc::get_mut(&mut devices).expect("nobody else has it");
        assert_eq!(lent.iter_mut_port_dev().count(), 1);
        let other = devices.clone();
        let vcpu =
            thread::spawn(move || assert_eq!(read_by(&mut Dispatcher::new(other), 1), Ok(1)));
        assert_eq!(read_by(&mut Dispatcher::new(devices), 1), Ok(1));
        vcpu.join().expect("the vCPU panicked");
    });
}

/// A vCPU has seen a device by the registry itself, before the addition has ended.
#[test]
fn what_a_vcpu_has_seen_its_handle_does_not_miss() {
    check("see, handle, add", 1_000, Preemptions(3), || {
        let devices = registry(&[]);
        let other = devices.clone();
        let mut vcpu = Dispatcher::new(other.clone());
        vcpu.refresh();
        let vcpu = thread::spawn(move || {
            if read(&other, 1).is_ok() {
                assert_eq!(
                    read_by(&mut vcpu, 1),
                    Ok(1),
                    "a device that was seen is missed"
                );
            }
        });
        devices.add_port_dev(Device::at(1)).unwrap();
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn everything_is_freed_with_the_registry() {
    check("dispatch, add, drop", 10_000, Unbounded, || {
        let devices = registry(&[]);
        let (device, dropped) = Device::new(1, 1);
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            let _ = read(&other, 1);
        });
        devices.add_port_dev(device).unwrap();
        vcpu.join().expect("the vCPU panicked");
        let devices = Arc::into_inner(devices).expect("the vCPU has ended");
        drop(devices);
        assert!(dropped.load(SeqCst));
    });
}

fn read_by(vcpu: &mut Dispatcher<Arc<SharedVmDevices>>, port: u16) -> AxResult<usize> {
    vcpu.handle_port_read(Port(port), WIDTH)
}

#[test]
fn a_vcpus_handle_against_a_hot_add() {
    check("handle, add", 20_000, Preemptions(4), || {
        let devices = registry(&[1]);
        let mut vcpu = Dispatcher::new(devices.clone());
        let vcpu = thread::spawn(move || {
            assert_eq!(read_by(&mut vcpu, 1), Ok(1), "a device was missed");
            let new = read_by(&mut vcpu, 2);
            assert!(matches!(new, Ok(2) | Err(AxError::NotFound)));
            if new.is_ok() {
                assert_eq!(
                    read_by(&mut vcpu, 2),
                    Ok(2),
                    "a device that was there is gone"
                );
            }
            assert_eq!(read_by(&mut vcpu, 1), Ok(1), "a device is gone");
        });
        devices.add_port_dev(Device::at(2)).unwrap();
        vcpu.join().expect("the vCPU panicked");
    });
}

/// A handle that lets go of tables while they are replaced and swept.
#[test]
fn a_handle_that_refreshes_and_parks() {
    check("refresh, park, add", 1_000, Preemptions(3), || {
        let devices = registry(&[1]);
        let mut vcpu = Dispatcher::new(devices.clone());
        vcpu.refresh();
        let vcpu = thread::spawn(move || {
            vcpu.refresh();
            vcpu.park();
            assert_eq!(read_by(&mut vcpu, 1), Ok(1));
        });
        devices.add_port_dev(Device::at(2)).unwrap();
        vcpu.join().expect("the vCPU panicked");
    });
}

#[test]
fn a_handle_knows_what_it_learned_of() {
    check("handle, remove, flag", 2_000, Preemptions(3), || {
        let devices = registry(&[]);
        let id = devices.add_port_dev(Device::at(1)).unwrap();
        let removed = Arc::new(AtomicBool::new(false));
        let mut vcpu = Dispatcher::new(devices.clone());
        let flag = removed.clone();
        let vcpu = thread::spawn(move || {
            let _ = read_by(&mut vcpu, 1);
            if flag.load(Ordering::Acquire) {
                assert_eq!(
                    read_by(&mut vcpu, 1),
                    Err(AxError::NotFound),
                    "a device answers that was removed"
                );
            }
        });
        drop(devices.remove(id).unwrap());
        removed.store(true, Ordering::Release);
        vcpu.join().expect("the vCPU panicked");
    });
}
