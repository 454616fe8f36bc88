//! A device that counts accesses after it should be out of use.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, DeviceAddrRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::Noticed;

/// A device that is poisoned when no vCPU should be inside it any more. It counts the vCPUs that still are.
pub struct Mortal<D> {
    device: D,
    poisoned: AtomicBool,
    noticed: Arc<Noticed>,
}

impl<D> Mortal<D> {
    /// A device whose late accesses `noticed` counts.
    pub(crate) fn new(device: D, noticed: Arc<Noticed>) -> Self {
        Self {
            device,
            poisoned: AtomicBool::new(false),
            noticed,
        }
    }

    /// From now on an access is late.
    pub fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// The device itself.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Makes an access, and checks for the poison afterwards: an access that began before the poison counts too.
    fn access<T>(&self, access: impl FnOnce(&D) -> T) -> T {
        let answer = access(&self.device);
        if self.poisoned.load(Ordering::Acquire) {
            self.noticed.add_late();
        }
        answer
    }
}

impl<R: DeviceAddrRange + 'static, D: BaseDeviceOps<R>> BaseDeviceOps<R> for Mortal<D> {
    fn emu_type(&self) -> EmulatedDeviceType {
        self.device.emu_type()
    }

    fn address_range(&self) -> R {
        self.device.address_range()
    }

    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        self.access(|device| device.handle_read(addr, width))
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.access(|device| device.handle_write(addr, width, val))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use axaddrspace::device::{Port, PortRange};
    use axdevice::{Removed, SharedVmDevices, ThreadSafe, Unmapped};

    use super::*;

    /// A device that waits twice inside an access: until the test sees the vCPU there, and until the test releases
    /// it.
    struct Room(Barrier);

    impl BaseDeviceOps<PortRange> for Room {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> PortRange {
            PortRange::new(Port(0), Port(0))
        }

        fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
            self.0.wait();
            self.0.wait();
            Ok(7)
        }

        fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
            Ok(())
        }
    }

    /// Removes a device while a vCPU is inside, and calls `bury`, which poisons it and lets the vCPU `leave`. Returns the
    /// number of late accesses.
    fn late_after(bury: impl FnOnce(Removed<ThreadSafe>, &Mortal<Room>, &dyn Fn())) -> u64 {
        let noticed = Arc::new(Noticed::default());
        let room = Arc::new(Mortal::new(Room(Barrier::new(2)), noticed.clone()));
        let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        let id = devices.add_port_dev(room.clone()).unwrap();
        thread::scope(|scope| {
            let vcpu = scope.spawn(|| {
                let mut vcpu = devices.dispatcher();
                let inside = vcpu.handle_port_read(Port(0), AccessWidth::Byte);
                (inside, vcpu.handle_port_read(Port(0), AccessWidth::Byte))
            });
            room.device().0.wait();
            let removed = devices.remove(id).unwrap();
            assert!(!removed.is_quiescent());
            bury(removed, &room, &|| {
                room.device().0.wait();
            });
            assert_eq!(vcpu.join().unwrap(), (Ok(7), Ok(0xff)));
        });
        noticed.late()
    }

    #[test]
    fn an_access_to_a_poisoned_device_is_counted() {
        let late = late_after(|_, room, leave| {
            room.poison();
            leave();
        });
        assert_eq!(late, 1);
    }

    #[test]
    fn no_access_is_late_once_a_device_is_quiescent() {
        let late = late_after(|removed, room, leave| {
            leave();
            while !removed.is_quiescent() {
                thread::yield_now();
            }
            room.poison();
        });
        assert_eq!(late, 0);
    }
}
