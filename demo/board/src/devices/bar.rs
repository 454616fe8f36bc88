//! The device that moves itself: the guest writes to its base address register, as for a PCI device.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering};

use ax_errno::{AxError, AxResult};
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice::{DeviceId, SharedVmDevices};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use guest::contract::{
    BAR_ADDRESS, BAR_DOORBELL, BAR_ID, BAR_SEED, BAR_SIZE, PLACE_STRIDE, first_place, pattern,
};
use spin::Once;

use super::Doorbells;
use crate::Count;

/// A vCPU's device with a base address register. Only this vCPU accesses it (`Relaxed`).
pub struct Bar {
    id: u32,
    address: AtomicU32,
    /// The registry that contains it. A device that owned its registry would never be dropped.
    devices: Weak<SharedVmDevices>,
    /// Its own name there, once it is registered.
    name: Once<DeviceId>,
    moves: Count,
    vcpu: u32,
    doorbells: Arc<dyn Doorbells>,
    /// Whether it stays where it is, although its address register changes.
    sabotaged: bool,
}

impl Bar {
    /// A device for `vcpu`, to be added to `devices`, and then [named](Self::named).
    pub(crate) fn new(
        vcpu: u32,
        devices: Weak<SharedVmDevices>,
        doorbells: Arc<dyn Doorbells>,
        sabotaged: bool,
    ) -> Self {
        Self {
            id: pattern(BAR_SEED, vcpu),
            address: AtomicU32::new(first_place(vcpu)),
            devices,
            name: Once::new(),
            moves: Count::default(),
            vcpu,
            doorbells,
            sabotaged,
        }
    }

    /// Sets the device's name. Without a name it does not move.
    pub(crate) fn named(&self, name: DeviceId) {
        self.name.call_once(|| name);
    }

    /// Its name, if it is set.
    pub fn name(&self) -> Option<DeviceId> {
        self.name.get().copied()
    }

    /// The number of its moves.
    pub fn moves(&self) -> u64 {
        self.moves.get()
    }

    fn range(address: u32) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(address as usize);
        GuestPhysAddrRange::from_start_size(start, BAR_SIZE as usize)
    }

    /// Moves the device: in the registry first, then in its own state.
    fn move_to(&self, address: u32) -> AxResult {
        let devices = self.devices.upgrade().ok_or(AxError::BadState)?;
        let name = *self.name.get().ok_or(AxError::BadState)?;
        if !self.sabotaged {
            devices.move_to(name, Self::range(address))?;
            self.doorbells.moved(self.vcpu);
        }
        self.address.store(address, Ordering::Relaxed);
        self.moves.add_one();
        Ok(())
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Bar {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        Self::range(self.address.load(Ordering::Relaxed))
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        let offset = addr.as_usize() as u32 % PLACE_STRIDE;
        Ok(match offset {
            BAR_DOORBELL.. => 0,
            BAR_ADDRESS.. => self.address.load(Ordering::Relaxed) as usize,
            BAR_ID.. => self.id as usize,
        })
    }

    fn handle_write(&self, addr: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
        match addr.as_usize() as u32 % PLACE_STRIDE {
            BAR_ADDRESS => self.move_to(val as u32),
            BAR_DOORBELL => {
                self.doorbells.exited(self.vcpu);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
